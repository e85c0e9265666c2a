"""A node in a line: what a large fleet is searched and sorted by, told of all nodes whichever are looked at."""

from msgspec import Struct

from muster.api.views import machine_status, model_names, worker_views
from muster.domain.gpu import Gpu
from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus

_STEP_PERCENT = 5


class MachineLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node in a line, to find it among a thousand by. Figures of its GPUs are rounded, so that not each beat is news.

    `gpu_percent` is the mean of those GPUs whose use is known, in steps of 5; memory is in GB.
    """

    machine_id: str
    status: str
    health_status: Health
    draining: bool = False
    late: bool = False
    hostname: str | None = None
    pool: str | None = None
    link: str = ""
    labels: dict[str, str] = {}
    services: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    gpu_count: int = 0
    gpu_names: tuple[str, ...] = ()
    gpu_percent: int | None = None
    gpu_memory_used_gb: int | None = None
    gpu_memory_total_gb: int | None = None
    out_of_service: int = 0
    workers: int = 0
    workers_busy: int = 0


def machine_line(node: Node, *, late: bool) -> MachineLine:
    facts = node.facts
    return MachineLine(
        machine_id=facts.node_id,
        status=machine_status(node),
        health_status=node.health,
        draining=node.draining,
        late=late,
        hostname=facts.hostname,
        pool=facts.pool,
        link=node.link,
        labels=facts.labels,
        services=tuple({name: None for service in node.services for name in (service.name, service.connector)}),
        models=tuple(model_names(node)),
        gpu_count=len(node.gpus),
        gpu_names=tuple(sorted({gpu.name for gpu in node.gpus if gpu.name})),
        gpu_percent=_mean_percent(node.gpus),
        gpu_memory_used_gb=_gigabytes([gpu.memory_used_mb for gpu in node.gpus]),
        gpu_memory_total_gb=_gigabytes([gpu.memory_total_mb for gpu in node.gpus]),
        out_of_service=sum(gpu.out_of_service is not None for gpu in node.gpus),
        workers=len(node.workers),
        workers_busy=sum(worker.status is WorkerStatus.BUSY for worker in worker_views(node)),
    )


def _mean_percent(gpus: tuple[Gpu, ...]) -> int | None:
    known = [gpu.utilization_percent for gpu in gpus if gpu.utilization_percent is not None]
    return round(sum(known) / len(known) / _STEP_PERCENT) * _STEP_PERCENT if known else None


def _gigabytes(megabytes: list[int | None]) -> int | None:
    known = [mb for mb in megabytes if mb is not None]
    return round(sum(known) / 1024) if known else None
