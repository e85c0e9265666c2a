"""The scripts behind `make`, on machines made of fake programs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Machine:
    """A PATH with nothing on it but the basics of any Unix and what a test puts there."""

    BASICS = ("sh", "cat", "env", "rm", "tail", "mktemp", "mkdir")

    def __init__(self, folder: Path) -> None:
        self.path = folder
        folder.mkdir()
        for name in self.BASICS:
            (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")

    def has(self, name: str, script: str) -> None:
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def has_python(self, name: str, version: str) -> None:
        """Put an interpreter there that answers the two questions asked of it."""
        new_enough = int(tuple(map(int, version.split("."))) < (3, 11))
        self.has(name, f'case "$2" in *print*) echo {version} ;; *) exit {new_enough} ;; esac')

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": str(self.path), "TMPDIR": str(self.path)} | env,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "bin")


def test_the_python_that_is_there_is_taken(machine: Machine) -> None:
    machine.has_python("python3", "3.11")

    assert machine.run("sh", "tools/find_python.sh").stdout == "python3\n"


def test_an_old_python_gives_way_to_a_newer_one_and_it_is_said(machine: Machine) -> None:
    machine.has_python("python3", "3.10")
    machine.has_python("python3.12", "3.12")

    ran = machine.run("sh", "tools/find_python.sh")

    assert ran.stdout == "python3.12\n"
    assert "python3 is Python 3.10" in ran.stderr


def test_an_old_python_that_was_asked_for_is_refused_and_a_newer_one_named(machine: Machine) -> None:
    machine.has_python("python3.10", "3.10")
    machine.has_python("python3.13", "3.13")

    ran = machine.run("sh", "tools/find_python.sh", MAKE_CHOSE_PYTHON="python3.10")

    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "needs Python 3.11 or newer, and python3.10 is Python 3.10" in ran.stderr
    assert "Next: make up PYTHON=python3.13" in ran.stderr


def test_without_a_python_the_next_step_is_to_install_one(machine: Machine) -> None:
    ran = machine.run("sh", "tools/find_python.sh")

    assert ran.returncode == 1
    assert "python3 does not run" in ran.stderr
    assert "Next: install a newer Python" in ran.stderr


def test_programs_that_are_there_are_not_installed(machine: Machine) -> None:
    machine.has("gcc", "exit 0")
    machine.has("promtool", "exit 0")
    machine.has("chromium", "exit 0")
    machine.has("redis-server", "exit 0")

    ran = machine.run("sh", "tools/test_programs.sh")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_without_root_the_exact_command_is_shown(machine: Machine) -> None:
    machine.has("gcc", "exit 0")
    machine.has("promtool", "exit 0")
    machine.has("id", "echo 1000")
    machine.has("apt-get", "exit 0")
    machine.has("chromium", "exit 0")
    machine.has("sudo", "exit 1")

    ran = machine.run("sh", "tools/test_programs.sh")

    assert ran.returncode == 1
    assert "Next: sudo apt-get install -y --no-install-recommends redis-server\n" in ran.stderr


@pytest.mark.parametrize("root", [True, False], ids=["root", "sudo without a password"])
def test_with_root_they_are_installed(machine: Machine, root: bool) -> None:  # noqa: FBT001 - a parameter of the test
    machine.has("gcc", "exit 0")
    machine.has("promtool", "exit 0")
    machine.has("id", f"echo {0 if root else 1000}")
    machine.has("sudo", '[ "$2" = true ] || { shift; "$@"; }')
    machine.has("apt-get", f'echo "$@" >> {machine.path}/asked')

    ran = machine.run("sh", "tools/test_programs.sh")

    assert ran.returncode == 0, ran.stderr
    asked = (machine.path / "asked").read_text().splitlines()
    assert asked == ["update -q", "install -y -q --no-install-recommends chromium redis-server"]


def test_what_apt_cannot_install_is_said(machine: Machine) -> None:
    machine.has("gcc", "exit 0")
    machine.has("promtool", "exit 0")
    machine.has("id", "echo 0")
    machine.has("apt-get", "echo no such package; exit 100")

    ran = machine.run("sh", "tools/test_programs.sh")

    assert ran.returncode == 1
    assert "apt-get could not install: chromium redis-server" in ran.stderr
    assert "no such package" in ran.stderr


def test_a_machine_without_apt_is_told_what_is_missing(machine: Machine) -> None:
    machine.has("gcc", "exit 0")
    machine.has("promtool", "exit 0")
    machine.has("id", "echo 0")

    ran = machine.run("sh", "tools/test_programs.sh")

    assert ran.returncode == 1
    assert "Missing on this machine: chromium redis-server" in ran.stderr


def test_a_model_server_that_loads_needs_nothing(machine: Machine) -> None:
    venv = machine.path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(shutil.which("true") or "/bin/true")

    ran = machine.run("sh", "tools/openmp.sh", VENV=str(venv))

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_library_that_cannot_be_had_is_named(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    venv = machine.path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(shutil.which("false") or "/bin/false")

    ran = machine.run("sh", "tools/openmp.sh", VENV=str(venv))

    assert ran.returncode == 1
    assert "Missing on this machine: libgomp1" in ran.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "tools").glob("*.sh")), ids=lambda path: path.name)
def test_every_script_is_for_any_shell(script: Path) -> None:
    dash = shutil.which("dash") or shutil.which("sh") or "sh"

    assert subprocess.run([dash, "-n", str(script)], check=False).returncode == 0


def test_help_names_every_command_of_make() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=os.environ | {"MAKEFLAGS": ""}, capture_output=True, text=True, check=True
    ).stdout

    for command in ("install", "up", "down", "status", "test", "check", "bench", "docs", "clean"):
        assert f"make {command} " in shown
