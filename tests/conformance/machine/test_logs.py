"""The rows about logs: of every component, together with coloured prefixes, cleared; and what helps to find a fault."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, free_port
from tests.valkey_server import ValkeyServer
from tests.waiting import eventually_sync

GPUS = 2
MACHINE = "basic-machine-local"
COMPONENTS = {
    *(f"control-plane/{name}" for name in ("api", "gateway", "server")),
    *(f"{MACHINE}/{name}" for name in ("agent", "keeper", "talker-gpu0", "talker-gpu1", "worker-0", "worker-1")),
}
_TALKER = Path(__file__).parents[2] / "integration" / "logs" / "talker.py"
_NODE_FILE = f"""
[[service]]
name = "talker"
connector = "vllm"
per = "gpu"
command = ["sh", "-c", "echo talker is up; exec {sys.executable} {_TALKER} {{port}}"]
"""


class Machine:
    def __init__(self, folder: Path, store_url: str) -> None:
        (folder / "node.toml").write_text(_NODE_FILE)
        self.folder = folder
        self.plane = ControlPlane(
            folder,
            "up",
            env={
                "MUSTER_NODE_FILE": "node.toml",
                "MUSTER_NODE_ID": MACHINE,
                "NUM_GPUS": str(GPUS),
                "MUSTER_DISCOVER": "false",
                "MUSTER_VALKEY_URL": store_url,
                "MUSTER_STOP_TIMEOUT_S": "1",
                "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
            },
        )

    def muster(self, *words: str) -> str:
        env = self.plane.env | {"HOME": str(self.folder), "FORCE_COLOR": "1", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-m", "muster.cli.main", *words],
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def logs(self) -> set[str]:
        nodes = ("control-plane", MACHINE)
        return {
            f"{node}/{log['name']}" for node in nodes for log in self.plane.get(f"/api/v1/nodes/{node}/logs")["logs"]
        }

    def work(self) -> None:
        """Have every component do something, and so say something."""
        for number in range(2 * GPUS):
            body = {"service_required": "simulation", "payload": {"duration_ms": 200}, "id": f"job-{number}"}
            self.plane.post("/api/jobs", body)
        chat = {"model": "talker", "messages": [{"role": "user", "content": "?"}]}
        eventually_sync(lambda: self.plane.post("/v1/chat/completions", chat))
        eventually_sync(lambda: self.logs() >= COMPONENTS, 30)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    port = free_port()
    store = ValkeyServer("valkey", "--port", str(port))
    store.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"CONFIG SET requirepass store-secret\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    machine = Machine(folder, f"valkey://:store-secret@127.0.0.1:{port}")
    try:
        machine.plane.start()
        eventually_sync(lambda: len(machine.plane.get("/api/v1/workers")) == GPUS, 60)
        machine.work()
        yield machine
    finally:
        machine.plane.stop()
        store.kill()


def test_8_every_component_has_a_log_of_its_own(machine: Machine) -> None:
    logs = machine.plane.data_dir / "logs"
    names = {path.relative_to(logs).with_suffix("").as_posix() for path in logs.rglob("*.log")}
    assert names == {name.removeprefix(f"{MACHINE}/") for name in COMPONENTS}


def test_8_one_component_is_viewed_alone(machine: Machine) -> None:
    shown = machine.muster("logs", "control-plane/server", "--tail", "500")
    assert "node_registered" in shown
    assert "|" not in shown.splitlines()[0].split("node_registered")[0][:30]
    assert "talker is up" in machine.muster("logs", f"{MACHINE}/talker-gpu1")


def test_8_all_are_viewed_together_with_coloured_prefixes(machine: Machine) -> None:
    colours: dict[str, set[str]] = {}
    for line in machine.muster("logs", "--tail", "20").splitlines():
        found = re.match(r"\x1b\[(\d+)m(\S+) +\|\x1b\[0m", line)
        assert found is not None, line
        colours.setdefault(found[2], set()).add(found[1])
    assert colours.keys() == COMPONENTS - {f"{MACHINE}/keeper"}, "the keeper of services has nothing to say"
    assert all(len(used) == 1 for used in colours.values())
    assert len({next(iter(used)) for used in colours.values()}) > 3


def test_8_clearing_empties(machine: Machine) -> None:
    machine.muster("logs", "clear", f"{MACHINE}/talker-gpu0")
    assert (machine.plane.data_dir / "logs" / "talker-gpu0.log").read_bytes() == b""
    assert machine.muster("logs", f"{MACHINE}/talker-gpu0") == ""
    assert "talker is up" in machine.muster("logs", f"{MACHINE}/talker-gpu1")


def test_5_2_each_worker_has_a_log(machine: Machine) -> None:
    for number in range(GPUS):
        lines = [
            json.loads(line) for line in machine.muster("logs", f"{MACHINE}/worker-{number}", "--json").splitlines()
        ]
        said: list[dict[str, Any]] = [json.loads(line["text"]) for line in lines]
        assert any(one["event"] == "attempt_ended" and one["outcome"] == "completed" for one in said)


def test_5_2_the_store_in_use_is_told_without_its_password(machine: Machine) -> None:
    shown = machine.muster("logs", "control-plane/server", "--tail", "1000", "--grep", "store_opened")
    assert ":***@127.0.0.1" in shown
    everything = "".join(path.read_text() for path in (machine.plane.data_dir / "logs").rglob("*.log"))
    assert "store-secret" not in everything


def test_4_3_the_way_of_a_machine_is_in_the_logs(machine: Machine) -> None:
    shown = machine.muster("logs", "control-plane/server", "--tail", "1000")
    for event in ("node_registered", "startup_step", "service_started", "worker_status_changed"):
        assert event in shown, event
