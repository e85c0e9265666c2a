"""A fleet with rented machines, on a clock that tests move."""

from collections.abc import Iterable

from msgspec.structs import replace

from muster.cloud.memory import MemoryCloud
from muster.cloud.prices import Prices
from muster.control.machines.budget import Budget
from muster.control.machines.service import CloudRules, CloudService
from muster.domain.machine import Machine
from muster.domain.model import Model
from muster.domain.node import Node, NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from tests.planes import PlaneUnderTest
from tests.unit.cloud.launches import LAUNCH

RULES = CloudRules(
    fleet="lab",
    budget=Budget(machines_max=3, hourly_usd_max=5.0, run_hours_max=10.0),
    refresh_s=0.01,
    idle_stop_s=100.0,
    boot_s=300.0,
    drain_s=50.0,
    look_every_s=0.0,
)


class RentedFleet:
    """A control plane with a cloud; `beside` is another control plane on the same store and the same cloud."""

    def __init__(self, rules: CloudRules = RULES, boot_s: float = 0.0) -> None:
        self.plane = PlaneUnderTest()
        self.clock = self.plane.clock
        self.cloud = MemoryCloud(self.clock, boot_s=boot_s, prices=Prices("cheap=0.1,dear=9"))
        self.rules = rules
        self.busy: list[str] = []
        self.seq = 0
        self.service = self.another("plane-a", lambda: self.busy)

    def another(self, plane_id: str, busy: object = tuple, *, leads: bool = True) -> CloudService:
        return CloudService(
            self.cloud,
            self.plane.fleet,
            self.plane.store.leases,
            self.plane.store.bus,
            self.plane.recorder,
            self.clock,
            self.rules,
            plane_id=plane_id,
            busy_workers=busy,  # type: ignore[arg-type]  # a test's own shorthand
            is_leader=lambda: leads,
        )

    async def machine(self, name: str = "worker-0", *models: str, machine_type: str = "cheap") -> Machine:
        """Rent one that runs and is listed."""
        launch = replace(LAUNCH, token=name, name=name, machine_type=machine_type, models=models or ("qwen",))
        machine = await self.cloud.create(launch)
        await self.service.machines.refresh()
        return machine

    async def at_rest(self, name: str = "worker-0", *models: str, machine_type: str = "cheap") -> Machine:
        machine = await self.machine(name, *models, machine_type=machine_type)
        await self.cloud.stop(machine.machine_id)
        await self.service.machines.refresh()
        self.cloud.calls.clear()
        return machine

    async def beat(self, node_id: str, *models: str, slots_busy: int = 0, boot: str = "boot-1") -> None:
        """Let the agent of that node be heard."""
        self.seq += 1
        service = Service(
            name="llama",
            connector="llamacpp",
            status=ServiceStatus.RUNNING,
            url="http://127.0.0.1:9",
            dialects=(Dialect.OPENAI,),
            models=tuple(Model(name=model) for model in models),
            slots=4,
            slots_busy=slots_busy,
        )
        await self.plane.heartbeat(
            node_id,
            self.seq,
            boot_id=boot,
            facts=NodeFacts(node_id=NodeId(node_id), instance_id=node_id),
            services=(service,) if models else (),
        )

    def node(self, node_id: str) -> Node:
        return self.plane.fleet.node(NodeId(node_id))

    def started(self) -> list[str]:
        return [machine_id for what, machine_id in self.cloud.calls if what == "start"]

    def stopped(self) -> list[str]:
        return [machine_id for what, machine_id in self.cloud.calls if what == "stop"]


async def kinds(fleet: RentedFleet) -> list[str]:
    return [kind for kind in await fleet.plane.recorded() if kind.startswith("machine_")]


def names(machines: Iterable[Machine]) -> list[str]:
    return [machine.name for machine in machines]
