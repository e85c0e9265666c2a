"""Services that this node runs itself: started, looked at, started again within limits, stopped to the last process."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from muster.agent.backoff import Backoff
from muster.agent.board import Entry
from muster.agent.services.figures import ProcessMonitor, Watched
from muster.agent.services.keeping import KeeperClient, Kept
from muster.agent.services.launch import Launched, Launcher, Provisions
from muster.agent.services.log_file import LogFile
from muster.agent.services.look import look
from muster.agent.services.restarts import Restarts
from muster.agent.services.sockets import holder_of
from muster.agent.services.template import Instance, bundles_of, models_of
from muster.agent.surroundings import Surroundings
from muster.domain.model import Model
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed

log = structlog.get_logger()

_RESTART_BACKOFF = Backoff(base_s=1.0, max_s=30.0)
_FIRST_LOOK_S, _LOOK_S_MAX = 0.05, 1.0  # while it starts
_HANGS_AFTER_S = 120.0  # alive but silent for so long: start it again
_UNWANTED_STOP_S = 10.0  # for what the node file speaks of no more
_FIGURES_S = 2.0  # a process that hangs in the kernel may keep who reads of it waiting


class Supervised:
    """One instance and the process that is it at present."""

    def __init__(self, instance: Instance, provisions: Provisions, around: Surroundings, keeper: KeeperClient) -> None:
        self._instance = instance
        self._template = instance.template
        self._provisions = provisions
        self._around = around
        self._log_file = LogFile(provisions.data_dir / "logs" / f"{instance.name}.log")
        self._launcher = Launcher(instance, provisions, around, keeper, self._log_file, self._tell)
        self._kept: Kept | None = None  # by an agent before us
        self._launched: Launched | None = None
        self._leaving = False
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
            on_demand=self._template.on_demand,
            models=self._known_models(),
        )

    def rest(self) -> None:
        """Be known to be there, and wait until somebody asks for what it serves."""
        self._put(status=ServiceStatus.STOPPED)

    async def start(self, kept: Kept | None = None) -> None:
        """Return once it runs, has failed for good or takes longer than it may; it is kept up from then on.

        `kept` is what an agent before us has started, to be taken over.
        """
        if self._task is None:
            self._kept = kept
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
        at_rest = tuple(replace(model, resident=False, memory_mb=None) for model in self._service.models)
        self._put(status=ServiceStatus.STOPPED, pid=None, error=None, slots_busy=None, models=at_rest)
        self._tell("service_stopped")

    async def leave(self) -> None:
        """Stop looking after it without stopping it, for the agent that comes after us."""
        self._leaving = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

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
    def service(self) -> Service:
        return self._service

    @property
    def status(self) -> ServiceStatus:
        return self._service.status

    @property
    def watched(self) -> Watched | None:
        """Who is to be asked how it is doing, while it runs."""
        if self._launched is None:
            return None
        process = self._launched.process
        return Watched(name=self.name, group=self._template.name, pid=process.pid, cgroup=process.cgroup)

    @property
    def outlives_a_stop(self) -> bool:
        """Whether it is to go on when we are stopped, for an agent that comes back soon."""
        return self._template.adopt == "after_stop" and self.status is ServiceStatus.RUNNING

    @property
    def rests_at_first(self) -> bool:
        return self._template.on_demand

    def _known_models(self) -> tuple[Model, ...]:
        """Return what it will serve, as far as can be known before it runs."""
        fetched = self._provisions.models
        files = [Path(fetched[name]) for name in models_of(self._template) if name in fetched]
        size_bytes = files[0].stat().st_size if len(files) == 1 and files[0].is_file() else None
        return tuple(Model(name=name, resident=False, size_bytes=size_bytes) for name in self._template.serves)

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
            if self._kept is not None:
                await self._launcher.end(self._kept, obstacle)
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
        """See one process through to its end; return how long it was healthy, and why it ended."""
        log_position = self._log_file.size()
        kept, self._kept = self._kept, None
        launched = None if kept is None else await self._launcher.adopt(kept)
        try:
            launched = self._launched = launched or await self._launcher.start()
        except UpstreamFailed as error:
            return 0.0, error.message
        process, url = launched.process, launched.url
        self._put(status=ServiceStatus.STARTING, pid=process.pid, url=url, started_at_ms=launched.started_at_ms)
        ended = asyncio.create_task(process.ended())
        try:
            healthy_s, reason = await self._watch(launched, ended)
        finally:
            ended.cancel()
            self._launched = None
            if not self._leaving:
                await process.stop(self._template.stop_timeout_s)
        if (holder := await asyncio.to_thread(holder_of, launched.host, launched.port)) is not None:
            reason += f"; port {launched.port} is held by {holder}"
        last_lines = self._log_file.since(log_position)
        return healthy_s, f"{reason}; its last words: {' / '.join(last_lines)}" if last_lines else reason

    async def _watch(self, launched: Launched, ended: asyncio.Task[str]) -> tuple[float, str]:
        started_s, url = self._now_s(), launched.url
        problem = await self._come_up(url, ended)
        if problem is not None:
            return 0.0, problem
        healthy_since_s = self._now_s()
        took_s = round(healthy_since_s - started_s, 2)
        adopted = {"adopted": True} if launched.adopted else {}  # by who was killed, and still the same process
        self._tell("service_started", url=url, pid=launched.process.pid, took_s=took_s, **adopted)
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
        self._keeper = KeeperClient(provisions.data_dir)
        self._provisions = provisions
        self._board = around.board
        self._supervised = {
            instance.name: Supervised(instance, provisions, around, self._keeper) for instance in instances
        }
        self._restarts: set[asyncio.Task[Service]] = set()
        self._monitor = ProcessMonitor(provisions.cgroups)
        self._reading: asyncio.Task[tuple[ProcessFigures, ...]] | None = None

    async def start(self) -> None:
        self._board.measured_by(self.figures)
        if self._provisions.cgroups is not None:
            await asyncio.to_thread(self._provisions.cgroups.prepare)
        kept = {each.name: each for each in await self._find_kept()}
        unwanted = kept.keys() - self._supervised.keys()  # first: others may want their ports and their memory
        await asyncio.gather(*(self._keeper.stop(name, _UNWANTED_STOP_S) for name in unwanted))
        await asyncio.gather(*(_begin(service, kept.get(name)) for name, service in self._supervised.items()))

    async def stop(self) -> None:
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        staying = {name for name, service in self._supervised.items() if service.outlives_a_stop}
        await asyncio.gather(
            *(each.leave() if name in staying else each.stop() for name, each in self._supervised.items())
        )
        # Those of an agent before us that were still to be taken over.
        await asyncio.gather(*(self._keeper.stop(name, _UNWANTED_STOP_S) for name in self._keeper.kept - staying))
        await self._keeper.close()

    async def figures(self) -> tuple[ProcessFigures, ...]:
        """Return how those that run are doing; nothing of them while that takes too long."""
        watched = [each for service in self._supervised.values() if (each := service.watched) is not None]
        if not watched:
            return ()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._monitor.read, watched), name="figures")
        await asyncio.wait([self._reading], timeout=_FIGURES_S)
        if not self._reading.done():
            return ()
        try:
            return self._reading.result()
        except Exception:
            log.exception("figures_fault")
            return ()

    async def _find_kept(self) -> list[Kept]:
        try:
            return await self._keeper.find()
        except OSError as error:  # each service will say so
            log.warning("kept_services_not_found", error=str(error))
            return []

    def has(self, name: str) -> bool:
        return name in self._supervised

    async def restart(self, name: str) -> Service:
        """Return the service as it is after the restart, which goes on though its caller no longer waits for it."""
        task = asyncio.create_task(self._supervised[name].restart(), name=f"restart {name}")
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        return await asyncio.shield(task)

    async def stop_service(self, name: str) -> Service:
        """Stop one, which stays so until it is restarted; return it as it is then."""
        supervised = self._supervised[name]
        await supervised.stop()
        return supervised.service

    def log_file(self, name: str) -> LogFile:
        return self._supervised[name].log_file


async def _begin(service: Supervised, kept: Kept | None) -> None:
    if kept is None and service.rests_at_first:
        service.rest()
    else:
        await service.start(kept)


async def _ends_within(task: asyncio.Task[str], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)
