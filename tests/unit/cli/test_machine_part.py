"""The machine beside the control plane, as commands find it by what was written of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from muster.cli.machine_part import MachinePart, clear_left_behind, find_machine, process_of, start_anew
from muster.cli.parts import running_parts, stopped_parts
from muster.cli.running import Running
from muster.errors import SetupError

RUNNING = Running(pid=os.getpid(), urls=["http://h:1"], started_at_ms=5, version="1", store="h:6379")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()", "muster"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def part(**changes: Any) -> MachinePart:
    return MachinePart(machine_id="m", log="machine.log", started_at_ms=7, **changes)


def created_at_ms(pid: int) -> int:
    return round(psutil.Process(pid).create_time() * 1000)


def write(folder: Path, **body: Any) -> Path:
    path = folder / "stack.json"
    path.write_text(json.dumps({"machine_id": "m", "log": "machine.log", "started_at_ms": 7} | body))
    return path


def test_what_is_left_behind_is_ended_and_told(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    file = write(tmp_path, pid=child.pid, created_at_ms=created_at_ms(child.pid))
    told = clear_left_behind(tmp_path, timeout_s=5)
    assert told == f"m (pid {child.pid}), which an earlier Muster left behind"
    assert child.wait(5) != 0
    assert not file.exists()
    assert clear_left_behind(tmp_path, timeout_s=5) is None


@pytest.mark.parametrize("difference_ms", [-10_000, 10_000])
def test_another_process_with_that_number_is_none_of_ours(
    tmp_path: Path, child: subprocess.Popen[bytes], difference_ms: int
) -> None:
    write(tmp_path, pid=child.pid, created_at_ms=created_at_ms(child.pid) + difference_ms)
    assert clear_left_behind(tmp_path, timeout_s=5) is None
    assert child.poll() is None


def test_one_of_another_program_is_none_of_ours() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        found = process_of(part(pid=other.pid, created_at_ms=created_at_ms(other.pid)))
        other.kill()
    assert found is None


@pytest.mark.parametrize("text", ["", "{}", "nonsense"])
def test_a_file_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert find_machine(tmp_path) is None


def test_without_a_machine_none_is_started_anew(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="without a profile") as refused:
        start_anew(RUNNING, tmp_path, {}, timeout_s=1)
    assert "muster down" in (refused.value.next_step or "")


def by_name(parts: Any) -> dict[str, Any]:
    return {each.name: each for each in parts}


def test_every_part_is_listed_when_nothing_runs() -> None:
    assert [(each.name, each.status) for each in stopped_parts()] == [
        (name, "stopped") for name in ("store", "control plane", "gateway", "monitor", "machine", "event log")
    ]


def test_the_parts_of_one_process_have_its_pid(tmp_path: Path) -> None:
    node: dict[str, Any] = {"node_id": "n", "phase": "ready", "reason": None, "address": "10.0.0.1", "services": []}
    parts = by_name(running_parts(RUNNING, None, node, tmp_path))
    assert {parts[name].pid for name in ("control plane", "gateway", "monitor", "machine n")} == {os.getpid()}
    assert (parts["gateway"].address, parts["monitor"].address) == ("http://h:1/v1", "http://h:1/")
    assert (parts["store"].address, parts["store"].about) == ("h:6379", "outside of Muster")
    assert (parts["event log"].status, parts["event log"].about) == ("stopped", "not asked for")
    assert parts["machine n"].about == "ready"


def test_a_machine_that_ended_says_how(tmp_path: Path) -> None:
    ended = by_name(running_parts(RUNNING, part(ended="it ended with code 1"), None, tmp_path))["machine m"]
    assert (ended.status, ended.pid, ended.about) == ("stopped", None, "it ended with code 1")
    again = by_name(running_parts(RUNNING, part(pid=2**22 + 1, created_at_ms=1), None, tmp_path))["machine m"]
    assert again.about == "it is started again"


def test_services_are_parts_with_their_own_processes(tmp_path: Path) -> None:
    service = {"name": "comfyui-gpu0", "status": "failed", "pid": None, "url": "u", "started_at_ms": 3, "error": "why"}
    node = {"node_id": "m", "phase": "error", "reason": "why", "address": "a", "services": [service]}
    parts = by_name(running_parts(RUNNING, part(pid=1, created_at_ms=1), node, tmp_path))
    assert (parts["comfyui-gpu0"].status, parts["comfyui-gpu0"].about) == ("failed", "why")
