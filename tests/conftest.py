"""What holds for every test: a busy machine decides none, and nothing that one starts is compiled anew each time."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# hypothesis judges what is found, not how fast
settings.register_profile("muster", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muster")

# Where Python is told to keep no bytecode, each of some hundred processes would need twice as long to start.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    kept = str(Path(__file__).parents[1] / ".cache" / "bytecode")
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ.setdefault("PYTHONPYCACHEPREFIX", kept)
