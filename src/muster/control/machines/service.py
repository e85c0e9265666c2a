"""Rented machines at work: started once, put to rest when they serve nothing or cost too much.

Every control plane lists them and may start one; only the one that leads puts them to rest.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec
import structlog
from msgspec import Struct

from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.control.machines import budget
from muster.control.machines.budget import Budget
from muster.control.machines.listing import Machines, is_busy, jobs_ended
from muster.control.recorder import Recorder
from muster.domain.event import Event
from muster.domain.machine import GONE, PAID, Machine, MachineState
from muster.domain.node import Node
from muster.errors import CloudFailed, Conflict, MachineNotFound, MusterError
from muster.ports import Bus, CloudProvider, Leases
from muster.rounds import Rounds

log = structlog.get_logger()

CLOUD_TOPIC = "cloud"

# Longer than any call to a cloud takes. After a start that failed no other control plane tries again before.
_START_LEASE_S = 60.0
_LOOK_EVERY_S = 2.0
_BUS_RETRY_S = 0.5
_AT_REST = frozenset({MachineState.STOPPING, MachineState.STOPPED}) | GONE


class CloudRules(Struct, frozen=True, kw_only=True):
    fleet: str
    budget: Budget
    refresh_s: float = 15.0
    idle_stop_s: float = 900.0
    boot_s: float = 600.0  # from a start until it serves
    drain_s: float = 120.0
    look_every_s: float = _LOOK_EVERY_S


class News(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What control planes tell each other: nodes that serve, and how long machines may now be idle."""

    used: tuple[str, ...] = ()
    idle_stop_s: dict[str, float] = {}


class CloudService:
    """A Lifecycle. `busy_workers` tells the workers (`node/service`) that our own gateway asks at present."""

    def __init__(
        self,
        provider: CloudProvider,
        fleet: Fleet,
        leases: Leases,
        bus: Bus,
        recorder: Recorder,
        clock: Clock,
        rules: CloudRules,
        *,
        plane_id: str,
        busy_workers: Callable[[], Iterable[str]] = tuple,
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        self.machines = Machines(provider, fleet, rules.fleet)
        self.rules = rules
        self._provider = provider
        self._fleet = fleet
        self._leases = leases
        self._plane_id = plane_id
        self._bus = bus
        self._recorder = recorder
        self._clock = clock
        self._busy_workers = busy_workers
        self._is_leader = is_leader
        self._since_ms = clock.now_ms()
        self._used_ms: dict[str, int] = {}  # by machine: when it last served something, as far as we heard
        self._jobs_ended: dict[str, int] = {}
        self._idle_stop_s: dict[str, float] = {}
        self._answered: set[str] = set()  # workers whose answers ended since we told the others
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._draining: set[str] = set()  # those among them that can still be called back
        self._drained: set[str] = set()  # nodes drained by us, not by a person
        self._rounds = Rounds()
        self._rests: set[asyncio.Task[None]] = set()
        self._spending = asyncio.Lock()

    # --- what others ask ---------------------------------------------------------------------------------------------

    def can_serve(self, model: str) -> list[Machine]:
        """Return machines that a request for this model could wait for, the soonest first."""
        return [machine for machine in self.machines.with_model(model) if self._is_coming(machine)]

    def wakeable(self) -> list[Machine]:
        """Return machines that some request could wake or wait for."""
        return [machine for machine in self.machines.all() if machine.state not in GONE and self._is_coming(machine)]

    def hourly_usd(self) -> float:
        return budget.hourly_usd(self._provider.hourly_usd, self.machines.running())

    def worker_answered(self, worker: str) -> None:
        """Note that our gateway has had an answer of this worker (`node/service`)."""
        self._answered.add(worker)

    async def start_machine(self, machine_id: str) -> Machine:
        """Have it running: called back from its way to rest, or started by whichever control plane is first."""
        task = self._starting.get(machine_id)
        if task is None:
            task = self._starting[machine_id] = asyncio.create_task(self._start(machine_id), name="machine-start")
            task.add_done_callback(lambda done: self._over(self._starting, machine_id, done))
        await _outcome(task, "Muster is stopping")
        return self.machines.get(machine_id)

    async def stop_machine(self, machine_id: str, reason: str) -> Machine:
        """Drain its node, wait until it serves nothing (for `drain_s` at most), stop it."""
        machine = self.machines.get(machine_id)
        if machine.state in _AT_REST:
            return machine
        task = self._stopping.get(machine_id)
        if task is None:
            task = self._stopping[machine_id] = asyncio.create_task(self._stop(machine, reason), name="machine-stop")
            task.add_done_callback(lambda done: self._over(self._stopping, machine_id, done))
        await _outcome(task, f"{machine_id} was called back: a request needs it")
        return self.machines.get(machine_id)

    def begin_rest(self, machine: Machine, reason: str) -> None:
        """Stop it without waiting for that."""

        async def rest() -> None:
            try:
                await self.stop_machine(machine.machine_id, reason)
            except MusterError as error:
                log.warning("machine_not_stopped", machine_id=machine.machine_id, error=error.message)

        if machine.machine_id not in self._stopping:
            task = asyncio.create_task(rest(), name="machine-rest")
            self._rests.add(task)
            task.add_done_callback(self._rests.discard)

    async def set_idle_stop(self, machine_id: str, idle_stop_s: float) -> None:
        """Change how long a machine may be idle, until the control planes are started anew; 0: for ever."""
        self.machines.get(machine_id)
        self._idle_stop_s[machine_id] = idle_stop_s
        await self._tell(News(idle_stop_s={machine_id: idle_stop_s}))

    def idle_stop_s(self, machine: Machine) -> float:
        own = self.rules.idle_stop_s if machine.idle_stop_s is None else machine.idle_stop_s
        return self._idle_stop_s.get(machine.machine_id, own)

    # --- Lifecycle ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._rounds.go("cloud", self.look, self.rules.refresh_s)
        self._rounds.go("cloud_news", self._listen, _BUS_RETRY_S)

    async def stop(self) -> None:
        await self._rounds.stop()
        tasks = [*self._rests, *self._starting.values(), *self._stopping.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._provider.close()

    async def _listen(self) -> None:
        async for data in self._bus.subscribe(CLOUD_TOPIC):
            self._hear(msgspec.json.decode(data, type=News))

    def _hear(self, news: News) -> None:
        now_ms = self._clock.now_ms()
        self._used_ms |= dict.fromkeys(news.used, now_ms)
        self._idle_stop_s |= news.idle_stop_s

    async def _tell(self, news: News) -> None:
        await self._bus.publish(CLOUD_TOPIC, msgspec.json.encode(news))

    # --- looking -----------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """List, tell what is used, and put to rest what should be, if that is ours to do."""
        await self.machines.refresh(self._changed)
        used = self._used_now()
        self._hear(News(used=used))
        if used:
            await self._tell(News(used=used))
        if self._is_leader():
            for machine in self.machines.running():
                if reason := self._reason_to_rest(machine):
                    self.begin_rest(machine, reason)

    def _used_now(self) -> tuple[str, ...]:
        """Return the machines that serve or have served since the last look."""
        answered, self._answered = self._answered, set()
        asked = {worker.partition("/")[0] for worker in (*answered, *self._busy_workers())}
        used = []
        for machine in self.machines.running():
            node = self.machines.node_of(machine)
            if node is None:
                continue
            ended = jobs_ended(node)
            if is_busy(node) or node.node_id in asked or ended != self._jobs_ended.get(machine.machine_id, ended):
                used.append(machine.machine_id)
            self._jobs_ended[machine.machine_id] = ended
        return tuple(used)

    def _reason_to_rest(self, machine: Machine) -> str | None:
        now_ms = self._clock.now_ms()
        if too_long := budget.overrun(self.rules.budget, machine, now_ms):
            return too_long
        idle_stop_s = self.idle_stop_s(machine)
        if not idle_stop_s:
            return None
        if self.machines.node_of(machine) is None:
            idle_stop_s = max(idle_stop_s, self.rules.boot_s)  # it may still be booting
        quiet_since_ms = max(machine.started_at_ms, self._since_ms, self._used_ms.get(machine.machine_id, 0))
        idle_s = (now_ms - quiet_since_ms) / 1000
        return f"it has served nothing for {idle_s:.0f} s" if idle_s >= idle_stop_s else None

    def _changed(self, before: Machine | None, after: Machine) -> None:
        """Say on the node and in the log what has become of its machine; once, so by the leader alone."""
        if not self._is_leader():
            return
        node = self.machines.node_of(after)
        if after.interrupted and (before is None or before.interrupted != after.interrupted):
            self._emit("machine_interrupted", after, after.interrupted)
            if node is not None:
                self._set_draining(node, draining=True)
        if before is None or before.state is after.state:
            return
        reason = after.interrupted or after.reason or f"its machine is {after.state}"
        self._emit(f"machine_{after.state}", after, reason)
        if after.state in _AT_REST and node is not None:
            text = f"its machine is {after.state}: {reason}"
            self._fleet.carry_out(self._fleet.book.lost(node.node_id, text, self._clock.now_ms()))
        elif before.state in _AT_REST and node is not None and node.draining:
            self._set_draining(node, draining=False)  # it was for the end of its last run

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _start(self, machine_id: str) -> None:
        if self._call_back(machine_id):
            return
        lease = f"start:{machine_id}"
        until_s = self._clock.monotonic_s() + self.rules.boot_s
        while True:
            await self.machines.refresh(self._changed)
            machine = self.machines.get(machine_id)
            if machine.state in GONE:
                raise MachineNotFound(f"{machine_id} is {machine.state}", field="machine_id")
            if machine.state in PAID:
                return
            if machine.state is MachineState.STOPPED and await self._leases.take(lease, self._plane_id, _START_LEASE_S):
                await self._spend(machine)
                await self._leases.release(lease, self._plane_id)
                return
            if self._clock.monotonic_s() > until_s:
                raise CloudFailed(f"{machine_id} has been {machine.state} for {self.rules.boot_s:g} s")
            await asyncio.sleep(self.rules.look_every_s)  # it is still stopping, or somebody else starts it

    async def _spend(self, machine: Machine) -> None:
        """Start it if the budget allows; one after the other, so that each is counted before the next is judged."""
        async with self._spending:
            running, price = self.machines.running(), self._provider.hourly_usd
            budget.check(self.rules.budget, price, running, machine.machine_type, spot=machine.spot)
            await self._provider.start(machine.machine_id)
            self._emit("machine_started", machine, "asked for")
            await self.machines.refresh(self._changed)

    def _call_back(self, machine_id: str) -> bool:
        """End a rest that has not gone past the drain; return whether that was so."""
        if machine_id not in self._draining:
            return False
        self._stopping[machine_id].cancel()
        self._draining.discard(machine_id)
        self._used_ms[machine_id] = self._clock.now_ms()
        node = self.machines.node_of(self.machines.get(machine_id))
        if node is not None and node.node_id in self._drained:
            self._set_draining(node, draining=False)
        return True

    def _is_coming(self, machine: Machine) -> bool:
        if machine.state is not MachineState.RUNNING or machine.machine_id in self._draining:
            return True
        return self._clock.now_ms() - machine.started_at_ms < self.rules.boot_s * 1000

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def _stop(self, machine: Machine, reason: str) -> None:
        machine_id = machine.machine_id
        log.info("machine_rests", machine_id=machine_id, reason=reason)
        self._draining.add(machine_id)
        try:
            await self._drain(machine)
        finally:
            self._draining.discard(machine_id)
        await self._provider.stop(machine_id)
        self._emit("machine_put_to_rest", machine, reason)
        await self.machines.refresh(self._changed)

    async def _drain(self, machine: Machine) -> None:
        until_s = self._clock.monotonic_s() + self.rules.drain_s
        node = self.machines.node_of(machine)
        if node is not None and not node.draining:
            self._set_draining(node, draining=True)
        while node is not None and self._serves(node) and self._clock.monotonic_s() < until_s:
            await asyncio.sleep(self.rules.look_every_s)
            node = self.machines.node_of(machine)

    def _serves(self, node: Node) -> bool:
        asked = {worker.partition("/")[0] for worker in self._busy_workers()}
        return node.connected and (is_busy(node) or node.node_id in asked)

    def _set_draining(self, node: Node, *, draining: bool) -> None:
        change = self._drained.add if draining else self._drained.discard
        change(node.node_id)
        effects = self._fleet.book.set_draining(node.node_id, self._clock.now_ms(), draining=draining)
        self._fleet.carry_out(effects)

    # --- smaller things ----------------------------------------------------------------------------------------------

    def _emit(self, kind: str, machine: Machine, reason: str) -> None:
        data = {"reason": reason, "name": machine.name, "machine_type": machine.machine_type}
        now_ms = self._clock.now_ms()
        self._recorder.emit([Event(kind=kind, key=machine.machine_id, at_ms=now_ms, data=data)])

    @staticmethod
    def _over(tasks: dict[str, asyncio.Task[None]], machine_id: str, done: asyncio.Task[None]) -> None:
        if tasks.get(machine_id) is done:
            del tasks[machine_id]
        if not done.cancelled():
            done.exception()  # whoever waited has seen it; nobody may wait any more


async def _outcome(task: asyncio.Task[None], when_cancelled: str) -> None:
    """Wait for what several may wait for: giving up here leaves it to the others."""
    await asyncio.wait([task])
    if task.cancelled():
        raise Conflict(when_cancelled)
    task.result()
