"""Services that this node runs itself: started, looked at, started again within limits, stopped to the last process."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from muster.agent.backoff import Backoff
from muster.agent.board import Entry
from muster.agent.services.log_file import LogFile
from muster.agent.services.look import look
from muster.agent.services.process import ServiceProcess, command_problem
from muster.agent.services.restarts import Restarts
from muster.agent.services.sockets import free_port, holder_of
from muster.agent.services.template import Instance, bundles_of, fill, models_of, paths_of
from muster.agent.surroundings import Surroundings
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed

log = structlog.get_logger()

HealthCheck = Callable[[str], Awaitable[None]]  # raises UpstreamFailed unless a URL answers 200

_RESTART_BACKOFF = Backoff(base_s=1.0, max_s=30.0)
_FIRST_LOOK_S, _LOOK_S_MAX = 0.05, 1.0  # while it starts
_HANGS_AFTER_S = 120.0  # alive but silent for so long: start it again


class Provisions(Struct, frozen=True, kw_only=True):
    """What services are started with."""

    data_dir: Path
    models: Mapping[str, str]  # paths of the models and bundles that were fetched, by name
    missing_models: Mapping[str, str]  # why the others were not
    check_health: HealthCheck
    gpu_names: Mapping[int, str] = {}  # what CUDA calls those that it does not know by their number


class Supervised:
    """One instance and the process that is it at present."""

    def __init__(self, instance: Instance, provisions: Provisions, around: Surroundings) -> None:
        self._instance = instance
        self._template = instance.template
        self._provisions = provisions
        self._around = around
        self._log_file = LogFile(provisions.data_dir / "logs" / f"{instance.name}.log")
        self._restarts = self._fresh_restarts()
        self._settled = asyncio.Event()
        self._restarting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._service = Service(
            name=instance.name,
            connector=self._template.connector,
            status=ServiceStatus.STARTING,
            managed=True,
            gpu_index=instance.gpu_index,
            slots=self._template.slots,
        )

    async def start(self) -> None:
        """Return once it runs, has failed for good or takes longer than it may; it is kept up from then on."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"service {self._instance.name}")
            waiting = asyncio.create_task(self._settled.wait())
            limit_s = self._template.start_timeout_s
            try:
                await asyncio.wait([waiting, self._task], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    async def stop(self) -> None:
        if self._task is None or self._task.done():
            return
        self._put(status=ServiceStatus.STOPPING)
        self._task.cancel()
        await asyncio.wait([self._task])
        self._put(status=ServiceStatus.STOPPED, pid=None, error=None)
        self._tell("service_stopped")

    async def restart(self) -> Service:
        """Stop it and start it anew, its restarts counted afresh; return how it is then."""
        async with self._restarting:
            await self.stop()
            self._task = None
            self._settled.clear()
            self._restarts = self._fresh_restarts()
            await self.start()
        return self._service

    @property
    def name(self) -> str:
        return self._instance.name

    @property
    def log_file(self) -> LogFile:
        return self._log_file

    @property
    def status(self) -> ServiceStatus:
        return self._service.status

    def _fresh_restarts(self) -> Restarts:
        return Restarts(self._template.restarts_max, _RESTART_BACKOFF, self._around.rng)

    # --- keeping it up -----------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        try:
            await self._keep_up()
        except Exception as error:
            log.exception("supervisor_fault", service=self._instance.name)
            self._give_up(f"a fault of the supervisor: {error}")

    async def _keep_up(self) -> None:
        if (obstacle := self._obstacle()) is not None:
            self._give_up(obstacle)
            return
        while True:
            try:
                healthy_s, reason = await self._live()
            except OSError as error:  # no such address, no room for the log
                healthy_s, reason = 0.0, str(error)
            delay_s = self._restarts.next_delay_s(healthy_s)
            if delay_s is None:
                self._give_up(reason)
                return
            self._put(status=ServiceStatus.STARTING, pid=None, error=reason, restarts=self._restarts.total)
            self._tell("service_restarting", reason=reason, restart=self._restarts.total, wait_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)

    def _obstacle(self) -> str | None:
        """Return what no further attempt would change."""
        connector, known = self._template.connector, self._around.connectors
        if connector not in known:
            return f"there is no connector {connector!r}; known are {', '.join(known)}"
        why = self._provisions.missing_models
        needed = (*models_of(self._template), *bundles_of(self._template))
        missing = [f"{name}: {why[name]}" for name in needed if name in why]
        what = "bundle" if self._template.bundle in why else "model"
        return f"its {what} is not there ({'; '.join(missing)})" if missing else None

    async def _live(self) -> tuple[float, str]:
        """Run one process to its end; return how long it was healthy, and why it ended."""
        host, port = self._around.address, self._instance.port
        if port is None:
            port = free_port(host)
        elif (holder := await asyncio.to_thread(holder_of, host, port)) is not None:
            return 0.0, f"port {port} is held by {holder}"
        log_position = self._log_file.size()
        command, env = self._filled(port)
        try:
            process = await ServiceProcess.spawn(command, env, self._provisions.data_dir, self._log_file)
        except OSError as error:
            return 0.0, command_problem(error, command)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._put(status=ServiceStatus.STARTING, pid=process.pid, url=url, started_at_ms=self._around.clock.now_ms())
        ended = asyncio.create_task(process.ended())
        try:
            healthy_s, reason = await self._watch(url, ended)
        finally:
            ended.cancel()
            await process.stop(self._template.stop_timeout_s)
        if (holder := await asyncio.to_thread(holder_of, host, port)) is not None:
            reason += f"; port {port} is held by {holder}"
        last_lines = self._log_file.since(log_position)
        return healthy_s, f"{reason}; its last words: {' / '.join(last_lines)}" if last_lines else reason

    async def _watch(self, url: str, ended: asyncio.Task[str]) -> tuple[float, str]:
        started_s = self._now_s()
        problem = await self._come_up(url, ended)
        if problem is not None:
            return 0.0, problem
        healthy_since_s = self._now_s()
        took_s = round(healthy_since_s - started_s, 2)
        self._tell("service_started", url=url, pid=self._service.pid, took_s=took_s)
        self._settled.set()
        reason = await self._stay_up(url, ended)
        return self._now_s() - healthy_since_s, reason

    async def _come_up(self, url: str, ended: asyncio.Task[str]) -> str | None:
        """Wait until it is healthy; return what kept it from that."""
        limit_s = self._template.start_timeout_s
        deadline_s = self._now_s() + limit_s
        wait_s = _FIRST_LOOK_S
        while not await _ends_within(ended, wait_s):
            try:
                self._runs(await self._look(url))
            except UpstreamFailed as error:
                if self._now_s() > deadline_s:
                    return f"it was not healthy within {limit_s:g} s: {error.message}"
                if not self._service.restarts:  # of a restarted one, what ended it says more
                    self._put(error=error.message)
                wait_s = min(2 * wait_s, _LOOK_S_MAX)
            else:
                return None
        return ended.result()

    async def _stay_up(self, url: str, ended: asyncio.Task[str]) -> str:
        """Look at it until it ends, or is silent for so long that it must be ended."""
        heard_s = self._now_s()
        while not await _ends_within(ended, self._around.look_every_s):
            await asyncio.to_thread(self._log_file.rotate_if_large)
            try:
                self._runs(await self._look(url))
            except UpstreamFailed as error:
                self._is_silent(error.message)
                if self._now_s() - heard_s > _HANGS_AFTER_S:
                    return f"it ran, but did not answer for {_HANGS_AFTER_S:g} s: {error.message}"
            else:
                heard_s = self._now_s()
        return ended.result()

    async def _look(self, url: str) -> Service:
        if self._template.health is not None:
            await self._provisions.check_health(url + self._template.health)
        return await look(self._around.connectors[self._template.connector], url)

    def _filled(self, port: int) -> tuple[list[str], dict[str, str]]:
        instance, models = self._instance, self._provisions.models
        values = {
            "python": sys.executable,
            "host": self._around.address,
            "port": str(port),
            "index": str(instance.index),
            "gpu": str(instance.gpu_index),
        } | paths_of(self._template, models)
        env = {name: fill(text, values, models) for name, text in self._template.env.items()}
        if instance.gpu_index is not None:  # in the order of the driver's own numbers
            device = self._provisions.gpu_names.get(instance.gpu_index, str(instance.gpu_index))
            env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device} | env
        return [fill(text, values, models) for text in self._template.command], env

    # --- what is seen of it ------------------------------------------------------------------------------------------

    def _runs(self, seen: Service) -> None:
        if self.status is ServiceStatus.UNHEALTHY:
            self._tell("service_answers_again")
        self._put(
            status=ServiceStatus.RUNNING,
            dialects=seen.dialects,
            models=seen.models,
            slots=seen.slots or self._template.slots,
            slots_busy=seen.slots_busy,
            error=None,
        )

    def _is_silent(self, reason: str) -> None:
        if self.status is not ServiceStatus.UNHEALTHY:
            self._tell("service_silent", reason=reason)
        self._put(status=ServiceStatus.UNHEALTHY, error=reason)

    def _give_up(self, reason: str) -> None:
        self._put(status=ServiceStatus.FAILED, pid=None, error=reason)
        self._tell("service_failed", reason=reason, restarts=self._restarts.total)

    def _put(self, **changes: Any) -> None:
        self._service = replace(self._service, **changes)
        self._around.board.put(Entry(service=self._service, public_url=self._service.url))

    def _tell(self, kind: str, **data: Any) -> None:
        self._around.outbox.add(kind, service=self._instance.name, **data)

    def _now_s(self) -> float:
        return self._around.clock.monotonic_s()


class Supervisor:
    """A Lifecycle over all instances; they start and stop side by side."""

    def __init__(self, instances: Sequence[Instance], provisions: Provisions, around: Surroundings) -> None:
        self._supervised = {instance.name: Supervised(instance, provisions, around) for instance in instances}
        self._restarts: set[asyncio.Task[Service]] = set()

    async def start(self) -> None:
        await asyncio.gather(*(service.start() for service in self._supervised.values()))

    async def stop(self) -> None:
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in self._supervised.values()))

    def has(self, name: str) -> bool:
        return name in self._supervised

    async def restart(self, name: str) -> Service:
        """Return the service as it is after the restart, which goes on though its caller no longer waits for it."""
        task = asyncio.create_task(self._supervised[name].restart(), name=f"restart {name}")
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        return await asyncio.shield(task)

    def log_file(self, name: str) -> LogFile:
        return self._supervised[name].log_file


async def _ends_within(task: asyncio.Task[str], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)
