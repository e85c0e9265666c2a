"""Rented machines as last listed, beside the nodes that run on them. Only who asks for a listing waits for it."""

import asyncio
from collections.abc import Callable

from muster.control.fleet.fleet import Fleet
from muster.domain.machine import PAID, Machine, MachineState
from muster.domain.model import canonical_model_name
from muster.domain.node import Node
from muster.domain.worker import WorkerStatus
from muster.errors import MachineNotFound
from muster.ids import NodeId
from muster.ports import CloudProvider

Changed = Callable[[Machine | None, Machine], None]  # as it was, as it is

# Those that a request could be served by soonest come first.
_SOONEST = (MachineState.RUNNING, MachineState.PENDING, MachineState.STOPPED, MachineState.STOPPING)


class Machines:
    def __init__(self, provider: CloudProvider, nodes: Fleet, fleet: str) -> None:
        """`fleet` is the tag of our machines."""
        self._provider = provider
        self._nodes = nodes
        self._fleet = fleet
        self._known: dict[str, Machine] = {}
        self._listing = asyncio.Lock()

    def all(self) -> list[Machine]:
        return sorted(self._known.values(), key=lambda machine: (machine.name, machine.machine_id))

    def running(self) -> list[Machine]:
        return [machine for machine in self.all() if machine.state in PAID]

    def get(self, machine_id: str) -> Machine:
        machine = self._known.get(machine_id)
        if machine is None:
            raise MachineNotFound(f"no machine {machine_id!r} in this fleet", field="machine_id")
        return machine

    def with_model(self, model: str) -> list[Machine]:
        """Return those that are to serve the model, and run or can be started; the soonest first."""
        wanted = canonical_model_name(model)
        found = [
            machine
            for machine in self.all()
            if machine.state in _SOONEST and wanted in map(canonical_model_name, machine.models)
        ]
        return sorted(found, key=lambda machine: _SOONEST.index(machine.state))

    def node_of(self, machine: Machine) -> Node | None:
        """Return the node that runs on it: its id is the machine's unless the person named it otherwise."""
        known = self._nodes.book.get(NodeId(machine.machine_id))
        if known is not None:
            return known
        return next((node for node in self._nodes.nodes() if node.facts.instance_id == machine.machine_id), None)

    async def refresh(self, changed: Changed | None = None) -> None:
        """List anew; raises CloudFailed and keeps what was known when the cloud cannot be asked."""
        async with self._listing:
            before = self._known
            listed = await self._provider.list(self._fleet)
            self._known = {machine.machine_id: machine for machine in listed}
        if changed is not None:
            for machine in listed:
                changed(before.get(machine.machine_id), machine)


def is_busy(node: Node) -> bool:
    """Tell whether it serves something now, by its own word."""
    return any(worker.status is WorkerStatus.BUSY or worker.current_jobs for worker in node.workers) or any(
        service.slots_busy for service in node.services
    )


def jobs_ended(node: Node) -> int:
    return sum(worker.jobs_completed + worker.jobs_failed for worker in node.workers)
