"""The machine's rows about starting anew, stopping and failing, each with a stack of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hiredis
import psutil
import pytest

from tests.conformance.machine.conftest import GPUS, MACHINE, FullStack, Json, sequence_of, services_of, told


class Channel:
    """Follows a channel of the store as any program can."""

    def __init__(self, socket_path: str, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(socket_path)
        self._reader = hiredis.Reader()
        self._socket.sendall(f"SUBSCRIBE {name}\r\n".encode())
        assert self._next()[0] == b"subscribe"

    def messages(self, count: int) -> list[Json]:
        """Return so many."""
        found = [json.loads(self._next()[2]) for _ in range(count)]
        self._socket.close()
        return found

    def _next(self) -> list[bytes]:
        while not (reply := self._reader.gets()):
            self._reader.feed(self._socket.recv(65536))
        return list(reply)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture
def taken_port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder


def test_3_3_and_f1_s_and_f3_i_a_machine_started_anew_tells_all_again_for_the_gpus_that_it_has_then(
    own_stack: FullStack,
) -> None:
    own_stack.start().wait_until_ready()
    channel = Channel(own_stack.parts()["store"]["address"], "machine:startup:events")

    killed = own_stack.parts()[f"machine {MACHINE}"]["pid"]
    os.kill(killed, signal.SIGKILL)  # it is started again by itself
    own_stack.wait_until_told([*sequence_of(GPUS), *sequence_of(GPUS)])
    for gpus in (4, 1):
        position = len(own_stack.messages())
        pid = own_stack.parts()[f"machine {MACHINE}"]["pid"]
        old = [psutil.Process(pid), *below(pid)]

        again = own_stack.up(gpus=gpus)

        assert again.returncode == 0, again.stderr
        own_stack.wait_until("ready", gpus)
        own_stack.wait_until_told(sequence_of(gpus), position)
        assert [machine["machine_id"] for machine in own_stack.state()["machines"]] == [MACHINE]
        assert {worker["machine_id"] for worker in own_stack.state()["workers"]} == {MACHINE}
        assert set(own_stack.processes()) == {"orchestrator", *services_of(gpus)[3:]}
        assert not [process for process in old if process.is_running()]
    expected = [*sequence_of(GPUS), *sequence_of(4), *sequence_of(1)]
    assert told(channel.messages(len(expected))) == expected
    assert [fact["kind"] for fact in own_stack.facts()].count("worker_cache_cleaned") == 4  # U4: at every start


def test_2_2_and_2_3_what_a_crash_left_is_cleared_and_a_stop_leaves_nothing(own_stack: FullStack) -> None:
    own_stack.start().wait_until_ready()
    machine_pid = own_stack.parts()[f"machine {MACHINE}"]["pid"]
    os.kill(machine_pid, signal.SIGSTOP)  # so that it cannot notice
    processes = [psutil.Process(machine_pid), *below(own_stack.plane.pid)]
    own_stack.plane.kill()
    assert psutil.pid_exists(machine_pid)

    again = own_stack.up("--detach")

    assert again.returncode == 0, again.stderr
    assert f"{MACHINE} (pid {machine_pid})" in again.stdout
    own_stack.wait_until("ready", GPUS)
    assert [machine["machine_id"] for machine in own_stack.state()["machines"]] == [MACHINE]
    assert not [process for process in processes if process.is_running()]

    parts = own_stack.parts()
    running = [psutil.Process(part["pid"]) for part in parts.values() if part["pid"]]
    down = own_stack.muster("down")
    assert down.returncode == 0, down.stderr
    assert {part["status"] for part in own_stack.parts().values()} == {"stopped"}
    assert not [process for process in running if process.is_running()]
    assert all(map(is_free, (own_stack.plane.port, own_stack.list_port, own_stack.simulation_port)))


def test_2_3_a_process_that_only_has_the_same_number_is_left_alone(own_stack: FullStack) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "muster"], stdin=subprocess.PIPE) as other:
        left = {"machine_id": MACHINE, "log": "x", "started_at_ms": 1, "pid": other.pid, "created_at_ms": 1}
        own_stack.plane.data_dir.mkdir(parents=True)
        file = own_stack.plane.data_dir / "stack.json"
        file.write_text(json.dumps(left))

        down = own_stack.muster("down")

        assert down.returncode == 0, down.stderr
        assert other.poll() is None
        assert not file.exists()
        other.kill()


def test_f4_s_a_machine_whose_service_does_not_start_is_not_ready_and_says_why(
    tmp_path: Path, taken_port: socket.socket
) -> None:
    port = taken_port.getsockname()[1]
    stack = FullStack(tmp_path, gpus=1, env={"MUSTER_COMFYUI_PORT": str(port)})
    try:
        first = stack.up("--detach", gpus=1)

        assert first.returncode == 1
        assert f"port {port} is held by" in first.stderr
        assert "Next: " in first.stderr
        machine = stack.machine()
        assert (machine["status"], machine["health_status"]) == ("error", "unhealthy")
        assert f"port {port} is held by" in machine["reason"]
        expected = [
            *sequence_of(1)[:7],
            ("service_failed", "comfyui-gpu0"),
            ("startup_failed", "comfyui_services_starting"),
        ]
        stack.wait_until_told(expected)
        assert stack.state()["workers"] == []

        taken_port.close()
        again = stack.up(gpus=1)

        assert again.returncode == 0, again.stderr
        stack.wait_until("ready", 1)
    finally:
        stack.remove()


def test_u1_a_machine_has_one_to_eight_gpus(own_stack: FullStack) -> None:
    refused = own_stack.up(gpus=9)
    assert refused.returncode == 1
    assert "1 to 8 GPUs" in refused.stderr
    assert "Next: " in refused.stderr
