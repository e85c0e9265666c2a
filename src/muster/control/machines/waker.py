"""Wakes models: a request for one that only a machine at rest has starts it, once, and waits until it is served."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence

import structlog

from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.control.machines.service import CloudService
from muster.domain.machine import Machine
from muster.domain.model import canonical_model_name
from muster.errors import CloudQuotaReached, Conflict, ModelAsleep, MusterError, NoCapacity, OverBudget, ShuttingDown
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.filters import connected, draining, health, late, service
from muster.placement.wish import Wish

log = structlog.get_logger()

_TRY_AGAIN_S = 30.0  # so long a failure is everybody's answer, and no cloud is asked
_LOOK_AGAIN_S = 1.0  # a change that nobody told costs at most this
_TRY_ANOTHER = (NoCapacity, CloudQuotaReached, OverBudget, Conflict)
_ANY = Wish()


class FleetWaker:
    """A Waker."""

    def __init__(self, cloud: CloudService, fleet: Fleet, clock: Clock, *, timeout_s: float) -> None:
        self._cloud = cloud
        self._fleet = fleet
        self._clock = clock
        self._timeout_s = timeout_s
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, ModelAsleep]] = {}
        self._changed = asyncio.Event()
        fleet.on_change(self._on_change)

    def wake(self, model: str) -> Awaitable[None] | None:
        name = canonical_model_name(model)
        task = self._under_way.get(name)
        if task is None:
            machines = self._cloud.can_serve(name)
            if not machines:
                return None
            if failure := self._fresh_failure(name):
                return _raise(failure)
            task = asyncio.create_task(self._wake(name, machines), name=f"wake {name}")
            self._under_way[name] = task
            task.add_done_callback(lambda done: self._over(name, done))
        return _outcome(task)

    def models(self) -> Iterable[str]:
        return dict.fromkeys(model for machine in self._cloud.wakeable() for model in machine.models)

    def why(self, model: str) -> str:
        return "waits for a machine that is being started" if canonical_model_name(model) in self._under_way else ""

    async def stop(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wake(self, model: str, machines: Sequence[Machine]) -> None:
        log.info("model_wakes", model=model, machine_ids=[machine.machine_id for machine in machines])
        try:
            async with asyncio.timeout(self._timeout_s):
                machine = await self._start_one(machines)
                await self._until_served(model)
        except TimeoutError:
            text = f"{model} was not served within {self._timeout_s:g} s of starting a machine for it"
            raise ModelAsleep(text, retry_after_s=_TRY_AGAIN_S, field="model") from None
        except MusterError as error:
            text = f"no machine could be started for {model}: {error.message}"
            raise ModelAsleep(text, retry_after_s=_TRY_AGAIN_S, field="model", reason=error.code) from None
        log.info("model_awake", model=model, machine_id=machine.machine_id)

    async def _start_one(self, machines: Sequence[Machine]) -> Machine:
        """Start the first that can be had; why the first could not is told when none can."""
        problem: MusterError | None = None
        for machine in machines:
            try:
                return await self._cloud.start_machine(machine.machine_id)
            except _TRY_ANOTHER as error:
                log.warning("machine_not_started", machine_id=machine.machine_id, error=error.message)
                problem = problem or error
        raise problem or ShuttingDown("Muster is stopping")

    async def _until_served(self, model: str) -> None:
        while not any(_serves(candidate, model) for candidate in self._fleet.candidates()):
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _fresh_failure(self, model: str) -> ModelAsleep | None:
        until_s, failure = self._failed.get(model, (0.0, None))
        left_s = until_s - self._clock.monotonic_s()
        if failure is None or left_s <= 0:
            self._failed.pop(model, None)
            return None
        return ModelAsleep(failure.message, retry_after_s=left_s, field="model", **failure.data)

    def _over(self, model: str, done: asyncio.Task[None]) -> None:
        self._under_way.pop(model, None)
        failure = None if done.cancelled() else done.exception()
        if isinstance(failure, ModelAsleep):
            log.warning("model_not_woken", model=model, error=failure.message)
            self._failed[model] = (self._clock.monotonic_s() + _TRY_AGAIN_S, failure)

    def _on_change(self, _: set[NodeId]) -> None:
        self._changed.set()


def _serves(candidate: Candidate, model: str) -> bool:
    """Judge by the record of the very node that has the model; what else is alive says nothing."""
    rules = (connected, health, late, draining, service)
    return candidate.model(model) is not None and not any(rule(candidate, _ANY) for rule in rules)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for what others wait for as well: giving up here changes nothing for them."""
    await asyncio.wait([task])
    if task.cancelled():
        raise ShuttingDown("Muster is stopping")
    task.result()


async def _raise(failure: MusterError) -> None:
    raise failure
