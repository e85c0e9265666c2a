"""Write requirements/constraints.txt from what is installed: names and versions only, no host, no path."""

import subprocess
import sys
from pathlib import Path

HEADER = """\
# Exact versions of everything `make install`, `make up` and `make test` put into .venv.
# Made anew with `make pins`; ranges that Muster itself accepts stand in pyproject.toml.
"""
# Wanted only by other Pythons than the one that makes the pins.
OF_OTHER_PYTHONS = ("async-timeout==5.0.1",)  # redis, before 3.11.3
NOT_OURS = ("muster", "pip", "setuptools")


def main() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    pins = [line for line in listing.splitlines() if line.partition("==")[0].lower() not in NOT_OURS]
    pins.extend(pin for pin in OF_OTHER_PYTHONS if pin not in pins)
    target = Path(__file__).parent.parent / "requirements" / "constraints.txt"
    target.write_text(HEADER + "".join(f"{pin}\n" for pin in sorted(pins, key=str.lower)))


main()
