"""What Prometheus' own tool says; Debian's package `prometheus` brings it."""

import shutil
import subprocess
from pathlib import Path


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run it and return what it printed; what it complains about is the failure."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: sh tools/test_programs.sh"
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"promtool {arguments[0]} {arguments[1]} says:\n{done.stdout}{done.stderr}"
    return done.stdout
