"""Models on disk are loaded when somebody asks for them, where that costs least, and unloaded when nobody does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from muster.clock import Clock
from muster.commands.lifecycle import ENDED
from muster.commands.order import Order
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.models.ledger import Ledger
from muster.control.models.uses import Uses
from muster.domain.command import Command, CommandStatus
from muster.domain.model import canonical_model_name
from muster.domain.node import Node
from muster.domain.residency import ModelPolicy
from muster.errors import ModelAsleep, MusterError, ShuttingDown
from muster.ids import NodeId
from muster.placement.residency import Plan, Room, idle, plans
from muster.rounds import Rounds, wait_up_to

log = structlog.get_logger()

_TRY_AGAIN_S = 15.0  # so long a failure is everybody's answer
_LOOK_AGAIN_S = 0.1  # at a command, whose end nobody tells us
_PATIENCE_S = 10.0  # then what is at work all the time has to make room, too
_SHOWN_S = 15.0  # from the end of a load until a heartbeat has told of it
_TICK_S = 2.0
_ASKED_AGAIN_S = 60.0
_GATEWAY, _IDLE = "a request", "nobody used it"
_IN_MEMORY = "it is in memory on every node that can load it"
_NOWHERE = "no connected node has it on disk, in a service that loads models by command ([models] in the node's file)"


class ModelLoader:
    """A Waker, and a Lifecycle for what nobody uses."""

    def __init__(
        self,
        fleet: Fleet,
        commands: CommandService,
        uses: Uses,
        clock: Clock,
        *,
        timeout_s: float,
        leads: Callable[[], bool],
    ) -> None:
        self.ledger = Ledger(fleet, uses)
        self.uses = uses
        self._fleet = fleet
        self._commands = commands
        self._clock = clock
        self._timeout_s = timeout_s
        self._leads = leads
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._why: dict[str, str] = {}
        self._failed: dict[str, tuple[float, ModelAsleep]] = {}
        self._unloading: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()
        self._rounds = Rounds()
        fleet.on_change(self._on_change)

    async def start(self) -> None:
        self._rounds.go("idle_models", self.tick, _TICK_S)

    async def stop(self) -> None:
        await self._rounds.stop()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- as Waker ----------------------------------------------------------------------------------------------------

    def wake(self, model: str) -> Awaitable[None] | None:
        name = canonical_model_name(model)
        task = self._under_way.get(name)
        if task is None:
            if not self.ledger.rooms(name):
                return None
            until_s, failure = self._failed.get(name, (0.0, None))
            if failure is not None and self._clock.monotonic_s() < until_s:
                return _raise(failure)
            task = asyncio.create_task(self._wake(name), name=f"load {name}")
            self._under_way[name] = task
            task.add_done_callback(lambda done: self._over(name, done))
        return _outcome(task)

    def models(self) -> Iterable[str]:
        return self.ledger.names()

    def why(self, model: str) -> str:
        return self._why.get(canonical_model_name(model), "")

    def cheapest(self, model: str) -> Plan:
        """Return where it would be loaded now; ModelAsleep says why nowhere."""
        rooms = self.ledger.rooms(model)
        found = plans(rooms)
        if not found.ways:
            loadable = canonical_model_name(model) in self.ledger.names()
            there = ", ".join(self._served(model))
            elsewhere = f"it is in memory already, in {there}, which keeps it" if there else _NOWHERE
            text = "; ".join(found.refusals) or (_IN_MEMORY if loadable else elsewhere)
            raise ModelAsleep(f"{model} can be loaded nowhere now: {text}", field="model")
        return found.ways[0]

    # --- loading -----------------------------------------------------------------------------------------------------

    async def _wake(self, model: str) -> None:
        failures: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                while not self._served(model):
                    plan = await self._plan(model, failures)
                    if plan is not None and (problem := await self._load(model, plan)) is not None:
                        failures[plan.key] = problem
        except TimeoutError:
            why = self._why.get(model, "it could not be loaded")
            text = f"{model} was not in memory within {self._timeout_s:g} s: {why}"
            raise ModelAsleep(text, retry_after_s=_TRY_AGAIN_S, field="model") from None

    async def _plan(self, model: str, failures: dict[str, str]) -> Plan | None:
        """Return the cheapest way; None when it may be another a little later. ModelAsleep: there is none."""
        began_s = self._clock.monotonic_s()
        while not self._served(model):
            patient = self._clock.monotonic_s() - began_s < _PATIENCE_S
            found = plans(self._untried(model, failures, patient=patient))
            if found.ways:
                return found.ways[0]
            later = plans(self._untried(model, failures, patient=False))
            if not later.ways:
                reasons = [*(f"{key} failed: {why}" for key, why in failures.items()), *later.refusals]
                text = "; ".join(reasons) or "no node has it any more"
                raise ModelAsleep(f"{model} cannot be loaded: {text}", retry_after_s=_TRY_AGAIN_S, field="model")
            self._say(model, f"waits for memory: {'; '.join(found.refusals)}")
            await self._look_again()
        return None

    def _untried(self, model: str, failures: dict[str, str], *, patient: bool) -> list[Room]:
        return [room for room in self.ledger.rooms(model, patient=patient) if room.key not in failures]

    async def _load(self, model: str, plan: Plan) -> str | None:
        """Carry out a plan; return what went wrong. Once it is done the node's next heartbeat says so."""
        instead = f" in place of {', '.join(resident.model for resident in plan.unload)}" if plan.unload else ""
        self._say(model, f"is being loaded on {plan.key}{instead}")
        self.uses.asked(plan.key, model, _GATEWAY)
        try:
            command = await self._issue("load_model", plan.key, model, self._timeout_s, unload=plan.unloaded)
            while command.status not in ENDED and not self._served(model):
                if command.progress is not None and command.progress.message:
                    self._say(model, command.progress.message)
                await self._look_again()
                (command,) = self._commands.find(command.command_id)
        except MusterError as error:
            return error.message
        if command.status is CommandStatus.DONE:
            return await self._shown(model, plan)
        return None if command.status not in ENDED else command.error or "it was not answered in time"

    async def _shown(self, model: str, plan: Plan) -> str | None:
        deadline_s = self._clock.monotonic_s() + _SHOWN_S
        while not self._served(model):
            if self._clock.monotonic_s() > deadline_s:
                return f"it was loaded, and {plan.key} did not show it"
            await self._look_again()
        return None

    async def _issue(
        self, name: str, key: str, model: str, timeout_s: float, *, by: str = _GATEWAY, unload: Iterable[str] = ()
    ) -> Command:
        node_id, _, service = key.partition("/")
        args = {"model": model, "service": service} | ({"unload": list(unload)} if unload else {})
        order = Order(command=name, nodes=(NodeId(node_id),), single=True, args=args, timeout_s=timeout_s, issued_by=by)
        (command,) = (await self._commands.issue(order)).commands
        return command

    def _served(self, model: str) -> list[str]:
        """Return who answers with it at once."""
        return [
            candidate.key
            for candidate in self._fleet.candidates()
            if (known := candidate.model(model)) is not None
            and (candidate.status == "running" and known.resident is not False)
            and (candidate.connected and not candidate.draining and not candidate.late)
        ]

    async def _look_again(self) -> None:
        self._changed.clear()
        await wait_up_to(self._changed, _LOOK_AGAIN_S)

    def _say(self, model: str, why: str) -> None:
        if self._why.get(model) != why:
            log.info("model_wakes", model=model, why=why)
            self._why[model] = why

    def _over(self, model: str, done: asyncio.Task[None]) -> None:
        self._under_way.pop(model, None)
        self._why.pop(model, None)
        self._failed.pop(model, None)
        failure = None if done.cancelled() else done.exception()
        if isinstance(failure, ModelAsleep):
            log.warning("model_not_loaded", model=model, error=failure.message)
            self._failed[model] = (self._clock.monotonic_s() + _TRY_AGAIN_S, failure)

    def _on_change(self, _: set[NodeId]) -> None:
        self._changed.set()

    # --- unloading ---------------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Take in what is used, and have what nobody uses unloaded: by one control plane only."""
        self.uses.look(self._fleet.nodes())
        if self._leads():
            for node in self._fleet.nodes():
                if node.connected and node.facts.models is not None:
                    await self._unload_idle(node, node.facts.models)

    async def _unload_idle(self, node: Node, policy: ModelPolicy) -> None:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        self._unloading = {key: at_s for key, at_s in self._unloading.items() if now_s - at_s < _ASKED_AGAIN_S}
        found = self.ledger.residents(node, self.uses.busy())
        for resident in idle(((resident, policy.idle_s(resident.model)) for _, _, resident in found), now_ms):
            key = f"{node.node_id}/{resident.service}"
            if (key, resident.model) in self._unloading or resident.model in self._under_way:
                continue
            self._unloading[key, resident.model] = now_s
            log.info("idle_model_unloaded", model=resident.model, worker=key)
            await self._issue("unload_model", key, resident.model, _ASKED_AGAIN_S, by=_IDLE)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for what others wait for as well: giving up here changes nothing for them."""
    await asyncio.wait([task])
    if task.cancelled():
        raise ShuttingDown("Muster is stopping")
    task.result()


async def _raise(failure: ModelAsleep) -> None:
    raise failure
