"""The profile `basic-machine-local`: a whole machine for development, a simulated ComfyUI and a worker for each GPU.

It comes up in four steps, and is ready only when all of them went well: a machine that lacks a service is none.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import BasicMachine, ServiceTemplate
from muster.agent.outbox import Teller
from muster.agent.profiles.process_list import ProcessList
from muster.agent.startup import Run, Step
from muster.domain.gpu import Gpu
from muster.domain.node import Phase
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import SetupError, UpstreamFailed
from muster.ports import Lifecycle
from muster.system import own_environment

NAME = "basic-machine-local"
GPUS = 2  # where nobody says how many
GPUS_MAX = 8
WORKER_KIND = "redis-worker"

_COMFYUI = "comfyui"
_SIMULATED = "muster.connectors.comfyui.simulated"
_SHARED_FOLDERS = ("models/checkpoints", "input", "output")
_INSTALL_S = 30.0
_WORKING = {
    WorkerStatus.STARTING: ServiceStatus.STARTING,
    WorkerStatus.STOPPED: ServiceStatus.STOPPED,
    WorkerStatus.ERROR: ServiceStatus.FAILED,
}


class OwnSteps(Struct, frozen=True, kw_only=True):
    """What every node does when it comes up."""

    identify: Run
    read_devices: Run
    join_fleet: Run
    fetch_models: Run
    start_services: Run
    attach_services: Run
    start_workers: Run


class Hands(Struct, frozen=True, kw_only=True):
    """What the profile works with; `keep` starts a part and has it stopped with the node."""

    outbox: Teller
    board: ServiceBoard
    gpus: Callable[[], Sequence[Gpu]]
    workers: Callable[[], Sequence[Worker]]
    keep: Callable[[Lifecycle], Awaitable[None]]
    data_dir: Path


def check_gpus(num_gpus: int) -> None:
    if not 1 <= num_gpus <= GPUS_MAX:
        raise SetupError(
            f"the profile {NAME} is a machine with 1 to {GPUS_MAX} GPUs, not {num_gpus}",
            next_step=f"give a number from 1 to {GPUS_MAX}: --gpus 2 (or NUM_GPUS)",
        )


def comfyui_name(gpu: int) -> str:
    return f"{_COMFYUI}-gpu{gpu}"


def worker_name(gpu: int) -> str:
    return f"{WORKER_KIND}-gpu{gpu}"


def service_names(gpus: Sequence[int]) -> list[str]:
    """Return what runs for these GPUs: everything that is counted comes from this one list."""
    return [*map(comfyui_name, gpus), *map(worker_name, gpus)]


def templates(profile: BasicMachine, data_dir: Path) -> tuple[ServiceTemplate, ...]:
    return (
        ServiceTemplate(
            name=_COMFYUI,
            connector=_COMFYUI,
            per="gpu",
            port=profile.comfyui_port or None,
            health="/health",
            slots=1,
            command=(
                *("{python}", "-m", _SIMULATED),
                *("--host", "{host}", "--port", "{port}", "--gpu", "{gpu}"),
                *("--folder", str(_comfyui_folder(data_dir))),
            ),
            start_timeout_s=60.0,
            restarts_max=2,
            adopt="never",  # a machine that is started again tells its whole start again
        ),
    )


class Startup:
    """The steps of this profile, made of what every node does."""

    def __init__(self, profile: BasicMachine, own: OwnSteps, hands: Hands) -> None:
        self._profile = profile
        self._own = own
        self._hands = hands

    def steps(self) -> list[Step]:
        return [
            Step(name="shared_setup_starting", run=self._set_up, required=True),
            Step(name="comfyui_install_starting", run=self._install, required=True),
            Step(name="comfyui_services_starting", run=self._start_services, required=True),
            Step(name="workers_starting", run=self._start_workers, required=True),
            Step(name="check", run=self._check, phase=Phase.CONFIGURING, required=True, told=False),
        ]

    def show_workers(self) -> None:
        """Keep the workers on the board beside the services, as the process list has them."""
        for worker in self._hands.workers():
            self._hands.board.put(Entry(service=_as_service(worker), public_url=None))

    async def _set_up(self) -> dict[str, Any]:
        await self._own.identify()
        try:
            await self._own.read_devices()
        finally:
            await self._own.join_fleet()  # whatever was found: others are to hear of it
        await self._keep_process_list()
        for folder in _SHARED_FOLDERS:
            (_comfyui_folder(self._hands.data_dir) / folder).mkdir(parents=True, exist_ok=True)
        self._started("shared-setup", folder=str(_comfyui_folder(self._hands.data_dir)))
        return {"gpus": len(self._hands.gpus())}

    async def _keep_process_list(self) -> None:
        listed = ProcessList(
            self._hands.board.services,
            self._hands.workers,
            list_port=self._profile.process_list_port,
            simulation_port=self._profile.simulation_port,
        )
        try:
            await self._hands.keep(listed)
        except UpstreamFailed as error:
            self._hands.outbox.add("service_failed", service="pm2-daemon", reason=error.message)
            raise
        self._started("pm2-daemon", **listed.urls)

    async def _install(self) -> dict[str, Any]:
        """See that the simulated ComfyUI can be run, and clear away what its instances kept for a while."""
        await self._own.fetch_models()
        temp = _comfyui_folder(self._hands.data_dir) / "temp"
        await asyncio.to_thread(shutil.rmtree, temp, ignore_errors=True)
        try:
            version = await _version_of_comfyui()
        except UpstreamFailed as error:
            self._hands.outbox.add("service_failed", service="comfyui-installer", reason=error.message)
            raise
        self._started("comfyui-installer", version=version)
        return {"version": version}

    async def _start_services(self) -> dict[str, Any]:
        facts = await self._own.start_services()
        self._refuse_missing(map(comfyui_name, self._gpu_numbers()))
        await self._own.attach_services()
        return facts

    async def _start_workers(self) -> dict[str, Any]:
        facts = await self._own.start_workers()
        self.show_workers()
        for worker in self._hands.workers():
            self._started(worker_name(_number(worker)), worker_id=worker.worker_id)
        return facts

    async def _check(self) -> dict[str, Any]:
        """See that there are as many of each as GPUs, and that none has ended while the workers started."""
        self._refuse_missing(service_names(self._gpu_numbers()))
        return {}

    def _refuse_missing(self, names: Iterable[str]) -> None:
        services = {service.name: service for service in self._hands.board.services()}
        missing = [_lack(name, services.get(name)) for name in names]
        if told := [lack for lack in missing if lack]:
            raise UpstreamFailed("; ".join(told))

    def _gpu_numbers(self) -> list[int]:
        return [gpu.index for gpu in self._hands.gpus()]

    def _started(self, service: str, **facts: Any) -> None:
        self._hands.outbox.add("service_started", service=service, **facts)


def _lack(name: str, service: Service | None) -> str | None:
    if service is None:
        return f"{name} was not started"
    if service.status in {ServiceStatus.RUNNING, ServiceStatus.STARTING} and name.startswith(WORKER_KIND):
        return None  # without a control plane a worker has nothing to work on yet, and waits
    if service.status is ServiceStatus.RUNNING:
        return None
    return f"{name} is {service.status.value}: {service.error or 'it gave no reason'}"


def _as_service(worker: Worker) -> Service:
    return Service(
        name=worker_name(_number(worker)),
        connector=WORKER_KIND,
        status=_WORKING.get(worker.status, ServiceStatus.RUNNING),
        managed=True,
        pid=os.getpid(),  # a worker lives in the agent's own process
        gpu_index=worker.gpu_index,
    )


def _number(worker: Worker) -> int:
    return worker.index if worker.gpu_index is None else worker.gpu_index


def _comfyui_folder(data_dir: Path) -> Path:
    return data_dir / _COMFYUI


async def _version_of_comfyui() -> str:
    command = (sys.executable, "-m", _SIMULATED, "--version")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=own_environment()
    )
    try:
        async with asyncio.timeout(_INSTALL_S):
            said, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise UpstreamFailed(f"{_SIMULATED} said nothing within {_INSTALL_S:g} s") from None
    if process.returncode != 0:
        raise UpstreamFailed(f"{_SIMULATED} cannot be run: {complaint.decode(errors='replace').strip()[-500:]}")
    return said.decode().strip()
