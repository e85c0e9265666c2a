"""Which workers of the fleet are idle, have a model, have room for one: by what was heard last.

What is not known counts for nobody: a worker of a node that is not heard is not there, one whose GPU cannot be read is
not idle, and one whose memory is unknown has no room.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from muster.domain.gpu import Gpu
from muster.domain.model import canonical_model_name
from muster.domain.node import Node
from muster.domain.process import UNMEASURED, ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.registry.health import LOST

_BYTES_PER_MB = 1024 * 1024


class FleetWorker(Struct, frozen=True, kw_only=True):
    """A worker with what its node tells of its GPU. Without one (`on_gpu`) there is nothing to be unknown."""

    node: Node
    worker: Worker
    on_gpu: bool = False
    gpu_utilization_percent: float | None = None
    memory_total_mb: int | None = None
    memory_free_mb: int | None = None
    models: tuple[str, ...] = ()

    @property
    def status(self) -> WorkerStatus:
        """Return its own word; of one that is a single process, and claims no jobs, its GPU tells whether it works."""
        works = self.worker.service is not None and self.gpu_utilization_percent
        return WorkerStatus.BUSY if works else self.worker.status

    @property
    def is_idle(self) -> bool:
        if self.worker.status is not WorkerStatus.IDLE:
            return False
        return not self.on_gpu or self.gpu_utilization_percent == 0

    def has_model(self, name: str) -> bool:
        return canonical_model_name(name) in map(canonical_model_name, self.models)

    def has_room_for(self, memory_mb: int) -> bool:
        """Whether something of it stays free: what is filled to the brim is full."""
        return self.memory_free_mb is not None and memory_mb < self.memory_free_mb


def workers_of(node: Node) -> Iterator[FleetWorker]:
    """Yield none for a node that is not heard."""
    if node.health in LOST or not node.connected:
        return
    gpus = {gpu.index: gpu for gpu in node.gpus}
    services = {service.name: service for service in node.services}
    processes = {process.name: process for process in node.processes}
    for worker in node.workers:
        own = None if worker.service is None else services.get(worker.service)
        if own is not None:
            yield _as_service(node, worker, own, processes.get(own.name, UNMEASURED))
        else:
            yield _on_gpu(node, worker, None if worker.gpu_index is None else gpus.get(worker.gpu_index))


def find(
    nodes: Iterable[Node], *, idle: bool = False, model: str | None = None, free_memory_mb: int | None = None
) -> list[FleetWorker]:
    """Return the workers of which all holds that is asked for."""
    return [
        found
        for node in nodes
        for found in workers_of(node)
        if (not idle or found.is_idle)
        and (model is None or found.has_model(model))
        and (free_memory_mb is None or found.has_room_for(free_memory_mb))
    ]


def _as_service(node: Node, worker: Worker, service: Service, process: ProcessFigures) -> FleetWorker:
    return FleetWorker(
        node=node,
        worker=worker,
        on_gpu=True,  # as far as anybody can tell
        gpu_utilization_percent=process.gpu_utilization_percent,
        memory_total_mb=_megabytes(service.memory_total_bytes),
        memory_free_mb=_megabytes(service.memory_free_bytes),
        models=tuple(model.name for model in service.models),
    )


def _on_gpu(node: Node, worker: Worker, gpu: Gpu | None) -> FleetWorker:
    at_hand = [
        service
        for service in node.services
        if service.status is ServiceStatus.RUNNING and service.gpu_index in (None, worker.gpu_index)
    ]
    fit = gpu is not None and gpu.out_of_service is None
    return FleetWorker(
        node=node,
        worker=worker,
        on_gpu=worker.gpu_index is not None and not (gpu is not None and gpu.simulated),
        gpu_utilization_percent=gpu.utilization_percent if gpu is not None and fit else None,
        memory_total_mb=None if gpu is None else gpu.memory_total_mb,
        memory_free_mb=gpu.memory_free_mb if gpu is not None and fit else None,
        models=tuple(dict.fromkeys(model.name for service in at_hand for model in service.models)),
    )


def _megabytes(count: int | None) -> int | None:
    return None if count is None else count // _BYTES_PER_MB
