"""What is in which memory, and what would fit: from the nodes' records to the places that placement chooses among."""

from collections.abc import Iterator

from muster.control.fleet.candidates import gpus_of, memory_mb
from muster.control.fleet.fleet import Fleet
from muster.control.models.uses import Busy, Uses
from muster.domain.model import Model, canonical_model_name
from muster.domain.node import Health, Node
from muster.domain.residency import ModelPolicy
from muster.domain.service import Service, ServiceStatus
from muster.placement.residency import Resident, Room

_BYTES_PER_MB = 1024 * 1024
_OVER_ITS_SIZE = 1.2  # what it computes with comes on top of its weights
_TAKES_WORK = frozenset({Health.HEALTHY, Health.DEGRADED})
_AT_REST = frozenset({ServiceStatus.STOPPED, ServiceStatus.FAILED})
_NO_POLICY = ModelPolicy()


class Ledger:
    def __init__(self, fleet: Fleet, uses: Uses) -> None:
        self._fleet = fleet
        self._uses = uses

    def rooms(self, model: str, *, patient: bool = True) -> list[Room]:
        """Return every place where the model is on disk and can be loaded by command.

        Not `patient`: what is at work may be told to make room, which it does when it has answered.
        """
        wanted, busy = canonical_model_name(model), self._uses.busy()
        return [
            self._room(node, service, offered, busy if patient else None)
            for node in self._fleet.nodes()
            if node.connected
            for service in node.services
            if service.on_demand
            for offered in service.models
            if canonical_model_name(offered.name) == wanted and not in_memory(service, offered)
        ]

    def names(self) -> dict[str, None]:
        """Return all models that can be loaded by command somewhere, resident or not."""
        return dict.fromkeys(
            canonical_model_name(model.name)
            for node in self._fleet.nodes()
            if node.connected
            for service in node.services
            if service.on_demand
            for model in service.models
        )

    def residents(self, node: Node, busy: Busy | None) -> Iterator[tuple[Service, Model, Resident]]:
        """Yield what is in the memory of a node and can be taken out by command."""
        policy = node.facts.models or _NO_POLICY
        for service in node.services:
            if not service.on_demand:
                continue
            key = f"{node.node_id}/{service.name}"
            loaded = [model for model in service.models if in_memory(service, model)]
            for model in loaded:
                resident = Resident(
                    service=service.name,
                    model=canonical_model_name(model.name),
                    memory_mb=model.memory_mb or _owned_mb(node, service, len(loaded)) or self._needs_mb(node, model),
                    pinned=policy.rule(model.name).pinned,
                    busy=busy is not None and busy.has(key, service, model),
                    used_ms=self._uses.of(key, model.name).used_ms,
                )
                yield service, model, resident

    def _room(self, node: Node, service: Service, model: Model, busy: Busy | None) -> Room:
        policy = node.facts.models or _NO_POLICY
        found = self.residents(node, busy)
        return Room(
            key=f"{node.node_id}/{service.name}",
            needs_mb=self._needs_mb(node, model),
            free_mb=_free_mb(node, service, policy),
            residents=tuple(resident for other, _, resident in found if _share_memory(service, other)),
            resident_max=policy.resident_max,
            against=self._against(node, service),
        )

    def _against(self, node: Node, service: Service) -> str | None:
        if node.health not in _TAKES_WORK:
            return f"is {node.health.value}"
        if self._fleet.is_late(node):
            return "has missed heartbeats"
        if service.draining:
            return f"takes no work: {node.reason or 'it is draining'}"
        if node.draining or service.name in node.drained_services:
            return "is draining"
        if service.status is ServiceStatus.RUNNING or service.managed:
            return None
        return f"has its service {service.status.value}"

    def _needs_mb(self, node: Node, model: Model) -> int | None:
        """Return what people say, else what it took before, else a guess by its size."""
        said = (node.facts.models or _NO_POLICY).rule(model.name).memory_mb or self._uses.memory_mb(model.name)
        if said is not None or model.size_bytes is None:
            return said
        return round(model.size_bytes * _OVER_ITS_SIZE / _BYTES_PER_MB)


def in_memory(service: Service, model: Model) -> bool:
    return service.status not in _AT_REST and model.resident is not False


def _share_memory(service: Service, other: Service) -> bool:
    return service.gpu_index is None or other.gpu_index is None or service.gpu_index == other.gpu_index


def _owned_mb(node: Node, service: Service, models: int) -> int | None:
    """Return its share of what the service was measured to take of its GPUs."""
    owned = [
        owner.memory_mb
        for gpu in gpus_of(node, service)
        for owner in gpu.owners or ()
        if owner.service and owner.name == service.name and owner.memory_mb
    ]
    return sum(owned) // models if owned else None


def _free_mb(node: Node, service: Service, policy: ModelPolicy) -> int | None:
    """Count as free what those have that let go of it for this service's turn; without GPUs it is the machine's."""
    if not node.gpus:
        total_mb, used_mb = node.resources.memory_total_mb, node.resources.memory_used_mb
        return None if total_mb is None or used_mb is None else total_mb - used_mb
    free_mb = memory_mb(node, service, free=True)
    sharing = {
        other.name
        for other in node.services
        if other.name != service.name and {other.name, other.connector} & {*policy.share_gpu}
    }
    if free_mb is None or not sharing or not {service.name, service.connector} & {*policy.share_gpu}:
        return free_mb
    if any(gpu.owners is None for gpu in gpus_of(node, service)):
        return None
    owners = [owner for gpu in gpus_of(node, service) for owner in gpu.owners or ()]
    return free_mb + sum(owner.memory_mb or 0 for owner in owners if owner.service and owner.name in sharing)
