"""The full stack of the document, by its one command: what only looks shares one, what breaks it has its own."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, free_port
from tests.waiting import eventually_sync

MACHINE = "basic-machine-local"
GPUS = 2
_FAST = {
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_JOB_SWEEP_S": "0.1",
    "MUSTER_STOP_TIMEOUT_S": "1",
}
_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}

Json = dict[str, Any]


def services_of(gpus: int) -> list[str]:
    """Return what is told to have started, in its order."""
    numbers = range(gpus)
    return [
        *("pm2-daemon", "shared-setup", "comfyui-installer"),
        *(f"comfyui-gpu{number}" for number in numbers),
        *(f"redis-worker-gpu{number}" for number in numbers),
    ]


def sequence_of(gpus: int) -> list[tuple[str, Any]]:
    """Return the twelve groups of the document, one event after the other."""
    pm2, setup, installer, *others = services_of(gpus)
    return [
        ("machine_startup", "starting"),
        ("startup_step", "shared_setup_starting"),
        *(("service_started", name) for name in (pm2, setup)),
        ("startup_step", "comfyui_install_starting"),
        ("service_started", installer),
        ("startup_step", "comfyui_services_starting"),
        *(("service_started", name) for name in others[:gpus]),
        ("startup_step", "workers_starting"),
        *(("service_started", name) for name in others[gpus:]),
        ("machine_startup", "configuring"),
        ("machine_startup", "ready"),
        ("startup_complete", gpus),
    ]


def told(messages: list[Json]) -> list[tuple[str, Any]]:
    """Pick out of a monitor's messages what a machine told of its coming up, as in `sequence_of`."""
    about = {
        "machine_startup": "phase",
        "startup_step": "step",
        "service_started": "service",
        "startup_complete": "worker_count",
        "service_failed": "service",
        "startup_failed": "step",
    }
    return [
        (message["event"], message[about[message["event"]]]) for message in messages if message.get("event") in about
    ]


class FullStack:
    """`muster up --profile basic-machine-local` on ports and in a folder of its own."""

    def __init__(self, folder: Path, gpus: int = GPUS, env: Mapping[str, str] | None = None) -> None:
        self.list_port, self.simulation_port = free_port(), free_port()
        ports = {
            "MUSTER_COMFYUI_PORT": "0",
            "MUSTER_PROCESS_LIST_PORT": str(self.list_port),
            "MUSTER_SIMULATION_PORT": str(self.simulation_port),
        }
        arguments = ("--profile", MACHINE, "--gpus", str(gpus))
        self.plane = ControlPlane(folder, "up", *arguments, env=_FAST | ports | dict(env or {}))
        self.logs = self.plane.data_dir / "logs"

    def start(self) -> "FullStack":
        self.plane.start()
        return self

    def remove(self) -> None:
        if self.plane.process is not None:
            self.plane.stop()
        if (self.plane.data_dir / "muster.json").exists():
            self.muster("down")

    def muster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "muster.cli.main", *arguments],
            env=_CLEAN | {"HOME": str(self.plane.folder)} | self.plane.env,
            cwd=self.plane.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def up(self, *arguments: str, gpus: int = GPUS) -> subprocess.CompletedProcess[str]:
        return self.muster("up", "--profile", MACHINE, "--gpus", str(gpus), *arguments)

    def parts(self) -> dict[str, Json]:
        found = json.loads(self.muster("status", "--json").stdout)
        return {part["name"]: part for part in found["parts"]}

    # --- what it shows ------------------------------------------------------------------------------------------------

    def state(self) -> Json:
        return dict(self.plane.get("/api/monitor/state")["data"])

    def machine(self) -> Json:
        return next((found for found in self.state()["machines"] if found["machine_id"] == MACHINE), {})

    def wait_until(self, status: str, workers: int | None = None) -> None:
        def came() -> bool:
            statuses = [worker["status"] for worker in self.state()["workers"]]
            return self.machine().get("status") == status and (workers is None or statuses == ["idle"] * workers)

        eventually_sync(came, 60)

    def wait_until_ready(self, gpus: int = GPUS) -> None:
        self.wait_until("ready", gpus)
        eventually_sync(lambda: told(self.messages()) and told(self.messages())[-1][0] == "startup_complete")

    def messages(self) -> list[Json]:
        """Return what the event log has: all that a monitor was told since the start."""
        return [json.loads(line) for line in (self.logs / "monitorEventStream.log").read_text().splitlines()]

    def wait_until_told(self, expected: list[tuple[str, Any]], position: int = 0) -> None:
        """Wait until exactly this was told from a place in the event log on."""
        eventually_sync(lambda: told(self.messages()[position:]) == expected, 60)

    def facts(self) -> list[Json]:
        return list(self.plane.get("/api/events?limit=1000")["events"])

    def processes(self) -> dict[str, str]:
        """Ask as `pm2 jlist` was asked."""
        return {process["name"]: process["status"] for process in self.ask(self.list_port, "/pm2/list")}

    def ask(self, port: int, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.status == 200
            return json.loads(answer.read())

    @property
    def machine_log(self) -> str:
        return (self.logs / "machine.log").read_text()


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullStack]:
    stack = FullStack(tmp_path_factory.mktemp("stack")).start()
    stack.wait_until_ready()
    yield stack
    stack.remove()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[FullStack]:
    stack = FullStack(tmp_path)
    yield stack
    stack.remove()
