"""The profile's own steps over a machine that is made up: names and counts for each number of GPUs, and failures."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import BasicMachine
from muster.agent.profiles import basic_machine
from muster.agent.profiles.basic_machine import Hands, OwnSteps, Startup, service_names
from muster.agent.startup import StartupFailed, run_steps
from muster.domain.gpu import Gpu
from muster.domain.node import Phase
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import SetupError, UpstreamFailed
from muster.ids import NodeId, worker_id
from muster.ports import Lifecycle
from muster.system import SystemClock
from tests.unit.agent.test_startup import Told

PORTS = BasicMachine(comfyui_port=0, simulation_port=0, process_list_port=0)


class MadeUp:
    """A machine with some GPUs whose services start as they are told to."""

    def __init__(self, gpus: int, folder: Path) -> None:
        self.gpus = [Gpu(index=index, name="RTX 4090") for index in range(gpus)]
        self.told = Told()
        self.board = ServiceBoard()
        self.workers: list[Worker] = []
        self.phases: list[Phase] = []
        self.kept: list[Lifecycle] = []
        self.done: list[str] = []
        self.silent: set[str] = set()
        self.broken: str | None = None
        own = {name: self._own(name) for name in OwnSteps.__struct_fields__}
        hands = Hands(
            outbox=self.told,
            board=self.board,
            gpus=lambda: self.gpus,
            workers=lambda: self.workers,
            keep=self._keep,
            data_dir=folder,
        )
        self.startup = Startup(PORTS, OwnSteps(**own), hands)

    async def come_up(self) -> None:
        try:
            await run_steps(self.startup.steps(), self.told, SystemClock(), self.phases.append)
        finally:
            await asyncio.gather(*(each.stop() for each in self.kept))

    def put(self, name: str, status: ServiceStatus) -> None:
        service = Service(name=name, connector="comfyui", status=status, error="no room")
        self.board.put(Entry(service=service, public_url=None))

    def _own(self, name: str) -> Any:
        async def run() -> dict[str, Any]:
            self.done.append(name)
            if name == self.broken:
                raise UpstreamFailed("it cannot")
            if name == "start_services":
                for gpu in self.gpus:
                    service = f"comfyui-gpu{gpu.index}"
                    self.put(service, ServiceStatus.FAILED if service in self.silent else ServiceStatus.RUNNING)
                    self.told.add("service_started", service=service)
            if name == "start_workers":
                self.workers = [
                    Worker(worker_id=worker_id(NodeId("m"), n), index=n, status=WorkerStatus.IDLE, gpu_index=n)
                    for n in range(len(self.gpus))
                ]
            return {}

        return run

    async def _keep(self, part: Lifecycle) -> None:
        self.kept.append(part)
        await part.start()

    @property
    def started(self) -> list[str]:
        return [name for kind, name in self.told.short if kind == "service_started"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def version() -> str:
        return "1"

    monkeypatch.setattr(basic_machine, "_version_of_comfyui", version)


@pytest.mark.parametrize("gpus", range(1, 9))
async def test_u1_and_f3_u_all_names_come_from_the_one_number_of_gpus(gpus: int, tmp_path: Path) -> None:
    machine = MadeUp(gpus, tmp_path)
    await machine.come_up()
    expected = [f"{kind}-gpu{n}" for kind in ("comfyui", "redis-worker") for n in range(gpus)]
    assert service_names(range(gpus)) == expected
    assert machine.started == ["pm2-daemon", "shared-setup", "comfyui-installer", *expected]
    assert len(machine.started) == 3 + 2 * gpus
    assert [service.name for service in machine.board.services()] == expected
    assert machine.phases[-1] is Phase.CONFIGURING


async def test_steps_are_those_of_the_document(tmp_path: Path) -> None:
    machine = MadeUp(1, tmp_path)
    await machine.come_up()
    assert [name for kind, name in machine.told.short if kind == "startup_step"] == [
        "shared_setup_starting", "comfyui_install_starting", "comfyui_services_starting", "workers_starting",
    ]  # fmt: skip
    assert (tmp_path / "comfyui" / "models" / "checkpoints").is_dir()


@pytest.mark.parametrize(
    ("broken", "step"),
    [
        ("read_devices", "shared_setup_starting"),
        ("fetch_models", "comfyui_install_starting"),  # F4: a download that fails for good
        ("start_services", "comfyui_services_starting"),
        ("start_workers", "workers_starting"),
    ],
)
async def test_f4_s_whatever_fails_ends_the_start_once_others_can_hear_of_it(
    broken: str, step: str, tmp_path: Path
) -> None:
    machine = MadeUp(2, tmp_path)
    machine.broken = broken
    with pytest.raises(StartupFailed, match="it cannot") as raised:
        await machine.come_up()
    assert raised.value.step == step
    assert "join_fleet" in machine.done
    assert not any(name.startswith("redis-worker") for name in machine.started)


async def test_a_service_that_failed_is_named_and_no_worker_starts(tmp_path: Path) -> None:
    machine = MadeUp(2, tmp_path)
    machine.silent = {"comfyui-gpu1"}
    with pytest.raises(StartupFailed, match="comfyui-gpu1 is failed: no room"):
        await machine.come_up()
    assert "start_workers" not in machine.done


async def test_a_service_that_ends_while_the_workers_start_keeps_the_machine_from_being_ready(tmp_path: Path) -> None:
    machine = MadeUp(1, tmp_path)
    *steps, check = machine.startup.steps()
    await run_steps(steps, machine.told, SystemClock(), machine.phases.append)
    machine.put("comfyui-gpu0", ServiceStatus.STOPPED)
    with pytest.raises(StartupFailed, match="comfyui-gpu0 is stopped"):
        await run_steps([check], machine.told, SystemClock(), machine.phases.append)
    await asyncio.gather(*(each.stop() for each in machine.kept))


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (WorkerStatus.BUSY, ServiceStatus.RUNNING),
        (WorkerStatus.STOPPED, ServiceStatus.STOPPED),
        (WorkerStatus.ERROR, ServiceStatus.FAILED),
    ],
)
async def test_a_worker_is_on_the_board_as_it_is(status: WorkerStatus, shown: ServiceStatus, tmp_path: Path) -> None:
    machine = MadeUp(0, tmp_path)
    machine.workers = [Worker(worker_id=worker_id(NodeId("m"), 0), index=0, status=status)]
    machine.startup.show_workers()
    (service,) = machine.board.services()
    assert (service.name, service.connector, service.status) == ("redis-worker-gpu0", "redis-worker", shown)


@pytest.mark.parametrize("count", [0, 9])
def test_u1_other_numbers_of_gpus_are_refused(count: int) -> None:
    with pytest.raises(SetupError, match="1 to 8 GPUs"):
        basic_machine.check_gpus(count)


async def test_an_installer_that_cannot_run_says_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(basic_machine, "_SIMULATED", "no.such.module")
    machine = MadeUp(1, tmp_path)
    with pytest.raises(StartupFailed, match=r"no\.such\.module cannot be run"):
        await machine.come_up()
    assert ("service_failed", "comfyui-installer") in machine.told.short
