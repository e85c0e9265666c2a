"""A cloud in memory: faithful where EC2's imitations are not, in idempotent launches, slow boots, full zones and spot.

Machines move on when the clock does; nothing outlives the process.
"""

from msgspec.structs import replace

from muster.clock import Clock
from muster.cloud.prices import Prices
from muster.cloud.tags import facts_in, tags_of
from muster.domain.machine import GONE, Launch, Machine, MachineState
from muster.errors import Conflict, InvalidInput, MachineNotFound, MusterError

_MOVING = {
    MachineState.PENDING: MachineState.RUNNING,
    MachineState.STOPPING: MachineState.STOPPED,
    MachineState.TERMINATING: MachineState.TERMINATED,
}


class MemoryCloud:
    """A CloudProvider. `calls` has what was asked of it; `problem` is raised by whatever would start a machine."""

    def __init__(self, clock: Clock, *, boot_s: float = 0.0, prices: Prices | None = None) -> None:
        self._clock = clock
        self._boot_ms = round(boot_s * 1000)
        self._prices = prices or Prices()
        self._machines: dict[str, Machine] = {}
        self._settled_at_ms: dict[str, int] = {}
        self._launches: dict[str, tuple[Launch, str]] = {}
        self.problem: MusterError | None = None
        self.calls: list[tuple[str, str]] = []

    def hourly_usd(self, machine_type: str, *, spot: bool) -> float | None:
        return self._prices.hourly_usd(machine_type, spot=spot)

    async def create(self, launch: Launch) -> Machine:
        self.calls.append(("create", launch.name))
        if known := self._launches.get(launch.token):
            return self._again(launch, *known)
        if not launch.image:
            raise InvalidInput("image is required", field="image")
        if self.problem is not None:
            raise self.problem
        machine_id = f"i-{len(self._machines):017x}"
        machine = Machine(
            machine_id=machine_id,
            state=MachineState.PENDING,
            machine_type=launch.machine_type,
            spot=launch.spot,
            private_ip=f"10.0.0.{len(self._machines) + 1}",
            started_at_ms=self._clock.now_ms(),
            **facts_in(tags_of(launch)),
        )
        self._launches[launch.token] = (launch, machine_id)
        self._move(machine)
        return machine

    async def start(self, machine_id: str) -> Machine:
        self.calls.append(("start", machine_id))
        machine = self._look(machine_id)
        if machine.state in {MachineState.PENDING, MachineState.RUNNING}:
            return machine
        if machine.state is not MachineState.STOPPED:
            raise Conflict(f"{machine_id} is {machine.state}: it cannot be started", spent=False)
        if self.problem is not None:
            raise self.problem
        started = replace(
            machine, state=MachineState.PENDING, started_at_ms=self._clock.now_ms(), reason=None, interrupted=None
        )
        return self._move(started)

    async def stop(self, machine_id: str) -> Machine:
        self.calls.append(("stop", machine_id))
        machine = self._look(machine_id)
        if machine.state in GONE:
            raise Conflict(f"{machine_id} is {machine.state}: it cannot be stopped", spent=False)
        if machine.state in {MachineState.STOPPING, MachineState.STOPPED}:
            return machine
        return self._move(replace(machine, state=MachineState.STOPPING, reason="User initiated shutdown"))

    async def terminate(self, machine_id: str) -> Machine:
        self.calls.append(("terminate", machine_id))
        machine = self._look(machine_id)
        return machine if machine.state in GONE else self._move(replace(machine, state=MachineState.TERMINATING))

    async def list(self, fleet: str) -> list[Machine]:
        found = [self._look(machine_id) for machine_id in self._machines]
        return [machine for machine in found if machine.fleet == fleet]

    async def close(self) -> None:
        """Nothing to give back here."""

    def interrupt(self, machine_id: str, notice: str, *, stopped: bool) -> None:
        """Do as the cloud does to a machine on spot: first the notice, then the end."""
        machine = replace(self._look(machine_id), interrupted=notice)
        self._machines[machine_id] = replace(machine, state=MachineState.STOPPED) if stopped else machine

    def _again(self, launch: Launch, first: Launch, machine_id: str) -> Machine:
        machine = self._look(machine_id)
        if machine.state in GONE:
            raise Conflict(f"{machine_id}, which this token made, is gone", spent=True)
        if launch != first:
            raise Conflict("this token has made a machine of another kind", spent=False)
        return machine

    def _move(self, machine: Machine) -> Machine:
        self._machines[machine.machine_id] = machine
        self._settled_at_ms[machine.machine_id] = self._clock.now_ms() + self._boot_ms
        return machine

    def _look(self, machine_id: str) -> Machine:
        machine = self._machines.get(machine_id)
        if machine is None:
            raise MachineNotFound(f"no machine {machine_id!r} is known", field="machine_id")
        if machine.state in _MOVING and self._clock.now_ms() >= self._settled_at_ms[machine_id]:
            machine = self._machines[machine_id] = replace(machine, state=_MOVING[machine.state])
        return machine
