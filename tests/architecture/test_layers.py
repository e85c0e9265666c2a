"""Dependencies point down, and decisions do no I/O: the contracts of .importlinter."""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from tests.architecture.tree import ROOT, SOURCE


def contracts() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def test_every_import_keeps_the_contracts() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_has_its_layer() -> None:
    layers = contracts()["importlinter:contract:layers"]["layers"]
    named = {name.strip() for line in layers.splitlines() for name in line.split("|")} - {""}
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")} | {path.stem for path in SOURCE.glob("*.py")}

    assert named == packages - {"__init__"}


def test_the_pure_packages_are_named_as_such() -> None:
    pure = contracts()["importlinter:contract:pure"]["source_modules"].split()

    assert {"muster.registry", "muster.placement", "muster.jobs", "muster.commands"} < set(pure)
