"""Where others that are measured live: each in an environment of its own under .cache/bench, made when first needed."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = (ROOT / ".cache" / "bench").resolve()


def programs_of(name: str) -> Path:
    return CACHE / name / "bin"


def install(name: str, packages: Sequence[str], *, node: bool = False) -> str | None:
    """Make an environment, of Python or of Node, unless it stands; return what keeps it from being measured."""
    folder = CACHE / name
    stamp, wanted = folder / "installed", "\n".join([*packages, str(folder)])  # its programs know where they lie
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    print(f"# installing {name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if node:
        if shutil.which("npm") is None:
            return "needs node and npm"
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
    else:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        command = [*pip, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"does not install: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    stamp.write_text(wanted)
    return None
