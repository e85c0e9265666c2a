"""A busy machine must not decide a test: hypothesis judges what is found, not how fast."""

from hypothesis import HealthCheck, settings

settings.register_profile("muster", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muster")
