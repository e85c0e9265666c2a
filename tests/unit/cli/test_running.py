import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from muster.cli.client import Client
from muster.cli.running import find_running
from tests.unit.cli.conftest import Cli
from tests.waiting import eventually_sync

STARTED_LATER_MS = 60_000


@pytest.fixture
def stand_in() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that looks like Muster; it ends with its standard input, or by SIGTERM."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "muster"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        eventually_sync(lambda: "muster" in psutil.Process(process.pid).cmdline())  # just begun, it shows none
        yield process


def write_state(folder: Path, pid: int, **changes: Any) -> None:
    state = {"pid": pid, "urls": ["http://127.0.0.1:1234"], "started_at_ms": int(time.time() * 1000), "version": "0"}
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "muster.json").write_text(json.dumps(state | {"log": None} | changes))


def test_without_a_state_file_nothing_runs(home: Path) -> None:
    assert find_running(home / "data") is None


def test_a_state_file_is_believed_while_its_process_lives(home: Path, stand_in: subprocess.Popen[bytes]) -> None:
    write_state(home, stand_in.pid)
    assert find_running(home / "data") is not None

    stand_in.kill()
    stand_in.wait()
    assert find_running(home / "data") is None


def test_a_pid_that_was_given_to_another_process_is_not_ours(home: Path, stand_in: subprocess.Popen[bytes]) -> None:
    write_state(home, stand_in.pid, started_at_ms=int(time.time() * 1000) - STARTED_LATER_MS)

    assert find_running(home / "data") is None


def test_a_process_that_is_no_muster_is_not_ours(home: Path) -> None:
    write_state(home, 1)

    assert find_running(home / "data") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_broken_state_file_counts_as_none(home: Path, content: str) -> None:
    (home / "data").mkdir()
    (home / "data" / "muster.json").write_text(content)

    assert find_running(home / "data") is None


def test_commands_find_the_muster_that_runs_here(home: Path, stand_in: subprocess.Popen[bytes]) -> None:
    write_state(home, stand_in.pid)

    assert Client.find(None).url == "http://127.0.0.1:1234"


def test_status_says_that_nothing_runs(cli: Cli) -> None:
    outcome = cli("status")

    assert outcome.code == 1
    assert "muster up --detach" in outcome.out


def test_down_with_nothing_running_is_no_error(cli: Cli) -> None:
    assert cli("down").code == 0


def test_down_stops_it(home: Path, cli: Cli, stand_in: subprocess.Popen[bytes]) -> None:
    write_state(home, stand_in.pid)

    outcome = cli("down")

    assert outcome.code == 0
    assert str(stand_in.pid) in outcome.out
    assert eventually_sync(lambda: stand_in.poll() is not None)


@pytest.mark.parametrize("command", [("up",), ("up", "--detach")])
def test_a_second_up_says_so_and_changes_nothing(
    home: Path, cli: Cli, stand_in: subprocess.Popen[bytes], command: tuple[str, ...]
) -> None:
    write_state(home, stand_in.pid)

    outcome = cli(*command)

    assert outcome.code == 0
    assert "already runs" in outcome.out
    assert f"pid {stand_in.pid}" in outcome.out
    assert "http://127.0.0.1:1234" in outcome.out
    assert stand_in.poll() is None
