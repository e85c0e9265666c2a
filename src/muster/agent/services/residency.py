"""The models in this node's memory: loaded and unloaded as they are asked for, pinned ones kept there."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from muster.agent.board import ServiceBoard
from muster.agent.gpus.turns import GpuTurns
from muster.agent.outbox import Teller
from muster.agent.services.actions import ServiceActions, has_model
from muster.agent.services.look import look
from muster.agent.services.supervisor import Supervisor
from muster.clock import Clock
from muster.domain.job import Progress
from muster.domain.model import canonical_model_name
from muster.domain.residency import ModelPolicy
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, ModelNotFound, MusterError, UpstreamFailed
from muster.placement.refusal import what_there_is
from muster.ports import Connector, FreesMemory, LoadsModels, ReportProgress, UnloadsModels
from muster.rounds import Rounds

log = structlog.get_logger()

_TURN_LASTS_S = 15.0  # a model that was waited for is to answer before another takes its memory
_QUIET_S = 20.0  # what a service may still answer before it is stopped
_GONE_S = 60.0
_LOOK_S = 0.1
_TRY_AGAIN_S = 30.0
_PINS = "pins.json"
_AT_REST = frozenset({ServiceStatus.STOPPED, ServiceStatus.FAILED})


class Residency:
    """A Lifecycle; `policy` is what this node wants, None as long as nobody has said anything."""

    def __init__(
        self,
        policy: ModelPolicy | None,
        board: ServiceBoard,
        connectors: Mapping[str, Connector],
        services: ServiceActions,
        supervisor: Callable[[], Supervisor | None],
        turns: GpuTurns,
        outbox: Teller,
        clock: Clock,
        data_dir: Path,
        *,
        look_every_s: float,
    ) -> None:
        self._board = board
        self._connectors = connectors
        self._services = services
        self._supervisor = supervisor
        self._turns = turns
        self._outbox = outbox
        self._clock = clock
        self._pins = Pins(data_dir / _PINS)
        self._policy = policy
        self._look_every_s = look_every_s
        self._loading = asyncio.Lock()  # one after the other: what one load leaves free is not free for two
        self._paused = False
        self._left: list[str] = []  # stopped by `pause`, to be started again
        self._not_before_s: dict[str, float] = {}
        self._rounds = Rounds()
        turns.freed_by(self.free)

    @property
    def policy(self) -> ModelPolicy | None:
        return self._pins.over(self._policy)

    async def start(self) -> None:
        self._rounds.go("pinned_models", self._keep_pinned, self._look_every_s)

    async def stop(self) -> None:
        await self._rounds.stop()

    def marked(self, services: Iterable[Service]) -> tuple[Service, ...]:
        """Say of the services whose models are loaded by us that they are: requests come once that is done."""
        managed = self.policy is not None
        return tuple(
            replace(service, on_demand=True)
            if managed and isinstance(self._connectors.get(service.connector), LoadsModels)
            else service
            for service in services
        )

    async def pause(self) -> None:
        """Let go of everything and stop what this node runs, and load nothing until `resume`."""
        self._paused = True
        await asyncio.gather(*map(self._leave, self._board.services()))

    async def resume(self) -> None:
        self._paused = False
        self._not_before_s.clear()
        supervisor, names = self._supervisor(), self._left
        self._left = []
        if supervisor is not None:
            await asyncio.gather(*map(supervisor.restart, names))

    async def _leave(self, service: Service) -> None:
        supervisor = self._supervisor()
        if supervisor is not None and supervisor.has(service.name) and service.status not in _AT_REST:
            await self._stop(service)
            if not service.on_demand:
                self._left.append(service.name)
            return
        try:
            await self.free(service)
        except MusterError as error:
            log.warning("memory_not_freed", service=service.name, error=error.message)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def load(self, args: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        """Load a model, once those are out that are to make room: `unload` has them as SERVICE/MODEL."""
        if self._paused:
            raise Conflict("this machine's owner uses it at present: nothing is loaded")
        model, unload = args["model"], args.get("unload", [])
        service = self._able(model, args.get("service"))

        def say(why: str) -> None:
            report(Progress(message=why))

        async with self._turns.take(service, f"answers with {model}", say, lasts_s=_TURN_LASTS_S), self._loading:
            service = self._able(model, service.name)
            if _is_resident(service, model) and service.status is ServiceStatus.RUNNING:
                return {"model": model, "service": service.name, "resident": True}
            started_s = self._clock.monotonic_s()
            for each in unload:
                name, _, other = each.partition("/")
                await self._let_go(self._able(other, name), other)
            say(f"{service.name} loads {model}")
            await self._take_in(service, model)
        took_s = round(self._clock.monotonic_s() - started_s, 2)
        self._outbox.add("model_loaded", model=model, service=service.name, took_s=took_s, instead_of=unload)
        return {"model": model, "service": service.name, "took_s": took_s}

    async def unload(self, args: dict[str, Any], report: ReportProgress) -> Any:
        model = args["model"]
        try:
            service = self._able(model, args.get("service"))
        except Conflict:
            return await self._services.unload_model(args, report)  # by a router, which loads again by itself
        async with self._loading:
            await self._let_go(service, model)
        self._turns.leave(service)
        return {"model": model, "service": service.name}

    async def pin(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        return await self._pin(args["model"], pinned=True)

    async def unpin(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        return await self._pin(args["model"], pinned=False)

    async def _pin(self, model: str, *, pinned: bool) -> dict[str, Any]:
        if pinned:
            self._able(model, None)
        await asyncio.to_thread(self._pins.put, model, pinned=pinned)
        self._not_before_s.clear()
        self._outbox.add("model_pinned" if pinned else "model_unpinned", model=model)
        return {"model": model, "pinned": pinned}

    # --- what services do --------------------------------------------------------------------------------------------

    async def free(self, service: Service) -> None:
        """Have a service let go of all its memory, after what it does."""
        connector: object = self._connectors.get(service.connector)
        if self._sleeps(service):
            await self._stop(service)
        elif service.status is not ServiceStatus.RUNNING:
            return
        elif isinstance(connector, FreesMemory):
            await connector.free_memory(service)
        elif isinstance(connector, LoadsModels):
            for model in (await self._look(service)).models:
                if model.resident:
                    await self._let_go(service, model.name)

    async def started(self, service: Service, say: Callable[[str], None]) -> Service:
        """Return it as it is now, started if it is one that rests until somebody asks for it."""
        if not self._sleeps(service):
            return service
        async with self._loading:
            now = next((known for known in self._board.services() if known.name == service.name), service)
            if now.status is ServiceStatus.RUNNING:
                return now
            if self._paused:
                raise UpstreamFailed("this machine's owner uses it at present: nothing is started")
            model = now.models[0].name
            say(f"{now.name} loads {model}")
            await self._take_in(now, model)
        self._outbox.add("model_loaded", model=model, service=now.name, instead_of=[])
        return next(known for known in self._board.services() if known.name == service.name)

    async def _take_in(self, service: Service, model: str) -> None:
        connector = self._connectors[service.connector]
        if self._sleeps(service):
            await self._services.restart({"service": service.name}, lambda _: None)
        elif isinstance(connector, LoadsModels):
            policy = self.policy
            await connector.load_model(service, model, stays=policy is not None and policy.rule(model).pinned)
            self._board.doubt(service.name)

    async def _let_go(self, service: Service, model: str) -> None:
        connector = self._connectors[service.connector]
        if self._sleeps(service):
            await self._stop(service)
        elif isinstance(connector, UnloadsModels):
            await connector.unload_model(service, model)
            await self._until(lambda seen: not _is_resident(seen, model), service, f"still has {model} in memory")
            self._board.doubt(service.name)
        self._outbox.add("model_unloaded", model=model, service=service.name)

    async def _stop(self, service: Service) -> None:
        """Stop a service of one model; what it answers may end before, for a while."""
        supervisor = self._supervisor()
        if supervisor is None or service.status in _AT_REST:
            return
        try:
            await self._until(lambda seen: not seen.slots_busy, service, "is at work", _QUIET_S)
        except MusterError as error:
            log.info("service_not_quiet", service=service.name, error=error.message)
        await supervisor.stop_service(service.name)

    async def _until(
        self, holds: Callable[[Service], bool], service: Service, text: str, limit_s: float = _GONE_S
    ) -> None:
        deadline_s = self._clock.monotonic_s() + limit_s
        while not holds(await self._look(service)):
            if self._clock.monotonic_s() > deadline_s:
                raise UpstreamFailed(f"{service.name} {text} after {limit_s:g} s")
            await asyncio.sleep(_LOOK_S)

    async def _look(self, service: Service) -> Service:
        return await look(self._connectors[service.connector], service.url or "")

    def _able(self, model: str, name: str | None) -> Service:
        """Return the service that has the model and takes it in when it is told."""
        holders = [service for service in self._board.services() if name in {None, service.name}]
        holders = [service for service in holders if has_model(service, model)]
        if not holders:
            names = sorted({known.name for service in self._board.services() for known in service.models})
            there = what_there_is(model, names)
            raise ModelNotFound(
                f"no service of this node has the model {model!r}{f' as {name}' if name else ''}{there}"
            )
        for service in holders:
            if self._sleeps(service):
                return service
            connector: object = self._connectors.get(service.connector)
            if isinstance(connector, LoadsModels) and service.status is ServiceStatus.RUNNING:
                return service
        raise Conflict("; ".join(self._why_not(service, model) for service in holders))

    def _why_not(self, service: Service, model: str) -> str:
        """Say of a service that takes in no model by command how it is with this one, and what can be done."""
        text = f"{service.name} ({service.connector}, {service.status.value})"
        if service.status is ServiceStatus.STARTING:
            return f"{text} is not ready to load {model}: wait until it runs"
        if service.status is not ServiceStatus.RUNNING:
            supervisor = self._supervisor()
            if supervisor is not None and supervisor.has(service.name):
                return f"{text} does not run: start it anew with `muster command NODE restart_service {service.name}`"
            return f"{text} does not run: start it as it was started before, Muster has only found it"
        if _is_resident(service, model):
            return f"{text} has {model} in memory already and keeps it while it runs: there is nothing to load"
        return f"{text} cannot load a model by command: it loads {model} by itself when it is asked for it"

    def _sleeps(self, service: Service) -> bool:
        supervisor = self._supervisor()
        return service.on_demand and supervisor is not None and supervisor.has(service.name)

    # --- pinned ones -------------------------------------------------------------------------------------------------

    async def _keep_pinned(self) -> None:
        policy = self.policy
        for model in () if self._paused or policy is None else policy.pinned():
            await self._keep(model)

    async def _keep(self, model: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._not_before_s.get(model, 0.0):
            return
        self._not_before_s[model] = now_s + _TRY_AGAIN_S
        if any(
            service.status is ServiceStatus.RUNNING and _is_resident(service, model)
            for service in self._board.services()
        ):
            self._not_before_s.pop(model)
            return
        try:
            await self.load({"model": model}, lambda _: None)
        except MusterError as error:
            self._outbox.add("pinned_model_not_loaded", model=model, reason=error.message)
        except Exception:
            log.exception("pinned_model_fault", model=model)


class Pins:
    """What people have pinned and unpinned at run time, over what the node's file says; kept through restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pins = self._read()

    def over(self, policy: ModelPolicy | None) -> ModelPolicy | None:
        if not self._pins:
            return policy
        known = policy or ModelPolicy()
        changed = tuple(replace(known.rule(model), pinned=pinned) for model, pinned in self._pins.items())
        others = tuple(rule for rule in known.rules if canonical_model_name(rule.name) not in self._pins)
        return replace(known, rules=(*others, *changed))

    def put(self, model: str, *, pinned: bool) -> None:
        self._pins = self._pins | {canonical_model_name(model): pinned}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._pins))
        part.replace(self._path)

    def _read(self) -> dict[str, bool]:
        try:
            kept = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("pins_not_read", path=str(self._path), error=str(error))
            return {}
        return {str(model): bool(pinned) for model, pinned in kept.items()} if isinstance(kept, dict) else {}


def _is_resident(service: Service, model: str) -> bool:
    wanted = canonical_model_name(model)
    return any(canonical_model_name(known.name) == wanted and known.resident is not False for known in service.models)
