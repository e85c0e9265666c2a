"""Which values fit each other."""

from muster.errors import SetupError
from muster.settings.fields import NO_MANAGEMENT, Settings, parse_pairs

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_STRATEGIES = ("balanced", "least_loaded", "round_robin", "random")
_PROFILES = ("", "basic-machine-local")
_LINKS = ("", "http", "grpc", "amqp")
_AMQP_SCHEMES = ("amqp://", "amqps://")
_HTTP_SCHEMES = ("http://", "https://")
_CLOUDS = ("", "ec2")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_GPUS_MAX = 64


def check(settings: Settings) -> None:
    for fits, problem, next_step in (*_network_rules(settings), *_time_rules(settings), *_word_rules(settings)):
        if not fits:
            raise SetupError(problem, next_step=next_step)
    parse_pairs(settings.labels, "labels")
    parse_pairs(settings.attach, "attach")


def _network_rules(s: Settings) -> list[tuple[bool, str, str]]:
    listening = [*s.listen_addresses, *([s.grpc_address] if s.grpc_address else [])]
    exposed = [f"{host}:{port}" for host, port in listening if host not in _LOOPBACK]
    return [
        (bool(s.listen_addresses), "listen is empty", "try MUSTER_LISTEN=127.0.0.1:8090"),
        (
            not exposed or bool(s.token),
            f"refusing to listen on {', '.join(exposed)} without a token: that network could use this fleet",
            "set MUSTER_TOKEN to a long random string, for example: export MUSTER_TOKEN=$(openssl rand -hex 24)",
        ),
        (s.link in _LINKS, f"unknown link {s.link!r}", "use http, grpc or amqp"),
        (
            s.link != "amqp" or bool(s.rabbitmq_url) or s.control_plane.startswith(_AMQP_SCHEMES),
            "link is amqp, but no broker is named",
            "set MUSTER_RABBITMQ_URL=amqp://USER:PASSWORD@HOST:5672",
        ),
        (
            not s.rabbitmq_url or s.rabbitmq_url.startswith(_AMQP_SCHEMES),
            "rabbitmq_url must begin with amqp:// or amqps://",
            "try MUSTER_RABBITMQ_URL=amqp://USER:PASSWORD@HOST:5672",
        ),
        (
            s.rabbitmq_management_url in {"", NO_MANAGEMENT} or s.rabbitmq_management_url.startswith(_HTTP_SCHEMES),
            "rabbitmq_management_url must begin with http:// or https://",
            "try MUSTER_RABBITMQ_MANAGEMENT_URL=http://HOST:15672, or none",
        ),
        (
            bool(s.tls_cert_file) == bool(s.tls_key_file),
            "tls_cert_file and tls_key_file belong together, and one of them is not set",
            "set both, or none",
        ),
        (
            s.job_payload_bytes_max <= s.request_bytes_max,
            "job_payload_bytes_max is above request_bytes_max",
            "raise request_bytes_max",
        ),
    ]


def _time_rules(s: Settings) -> list[tuple[bool, str, str]]:
    stale_s = s.stale_after_s or max(4.0, s.late_intervals) * s.heartbeat_interval_s
    return [
        (
            stale_s > s.heartbeat_interval_s,
            f"stale_after_s ({s.stale_after_s:g}) must be above heartbeat_interval_s ({s.heartbeat_interval_s:g})",
            "raise stale_after_s or lower heartbeat_interval_s",
        ),
        (
            not s.dead_after_s or s.dead_after_s > stale_s,
            f"dead_after_s ({s.dead_after_s:g}) must be above the time until stale ({stale_s:g})",
            "raise dead_after_s or lower stale_after_s",
        ),
        (
            s.job_sweep_s * 2 <= s.job_lease_s,
            f"job_sweep_s ({s.job_sweep_s:g}) must be at most half of job_lease_s ({s.job_lease_s:g})",
            "lower job_sweep_s",
        ),
        (
            s.job_retry_base_s <= s.job_retry_max_s,
            "job_retry_base_s is above job_retry_max_s",
            "lower job_retry_base_s",
        ),
    ]


def _word_rules(s: Settings) -> list[tuple[bool, str, str]]:
    return [
        (s.profile in _PROFILES, f"unknown profile {s.profile!r}", f"use {' or '.join(filter(None, _PROFILES))}"),
        (
            s.num_gpus == "auto" or (s.num_gpus.isdigit() and int(s.num_gpus) <= _GPUS_MAX),
            f"num_gpus must be `auto` or 0 to {_GPUS_MAX}, got {s.num_gpus!r}",
            "correct num_gpus (or NUM_GPUS)",
        ),
        (
            s.fleet_api_url in {"", "self"} or s.fleet_api_url.startswith(("http://", "https://")),
            f"fleet_api_url must be `self`, a URL of this control plane or empty, got {s.fleet_api_url!r}",
            "leave FLEET_API_URL away, or set it to nothing to serve this machine alone",
        ),
        (
            not s.file_store_url or (s.file_store_url.startswith("s3://") and len(s.file_store_url) > len("s3://")),
            f"file_store_url must be s3://BUCKET/PREFIX or empty, got {s.file_store_url!r}",
            "correct file_store_url",
        ),
        (
            s.file_bytes_max <= s.files_bytes_max,
            "file_bytes_max is above files_bytes_max",
            "raise files_bytes_max",
        ),
        (
            not s.files_url or s.files_url.startswith(("http://", "https://")),
            f"files_url must begin with http:// or https://, got {s.files_url!r}",
            "correct files_url",
        ),
        (
            not s.otel_endpoint or s.otel_endpoint.startswith(("http://", "https://")),
            f"otel_endpoint must begin with http:// or https://, got {s.otel_endpoint!r}",
            "name the collector as http://HOST:4318",
        ),
        (
            s.cgroup_root in {"", "none"} or s.cgroup_root.startswith("/"),
            f"cgroup_root must be an absolute path, `none` or empty, got {s.cgroup_root!r}",
            "try MUSTER_CGROUP_ROOT=/sys/fs/cgroup",
        ),
        (
            s.hub_url.startswith(("http://", "https://")),
            f"hub_url must begin with http:// or https://, got {s.hub_url!r}",
            "correct hub_url",
        ),
        (s.strategy in _STRATEGIES, f"unknown strategy {s.strategy!r}", f"use one of {', '.join(_STRATEGIES)}"),
        (s.cloud_provider in _CLOUDS, f"unknown cloud_provider {s.cloud_provider!r}", "use ec2, or leave it empty"),
        (s.log_level in _LOG_LEVELS, f"unknown log_level {s.log_level!r}", f"use one of {', '.join(_LOG_LEVELS)}"),
    ]
