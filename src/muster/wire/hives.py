"""What hives say over `/v1/hive-heartbeat`, and the same in the fleet's own words.

A worker of a hive is a process: here it is a service of its node, and the one worker that drives it. Their own clock
has no meaning here, and neither they nor their messages have numbers: the control plane counts for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from msgspec import Meta, Struct, field

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import Health, Node, NodeFacts, Phase
from muster.domain.process import UNMEASURED, ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import InvalidInput
from muster.ids import NodeId, check_name, worker_id
from muster.wire.agent import Heartbeat

T = TypeVar("T")
N = TypeVar("N", int, float)

LINK = "hive"

_BYTES_PER_MB = 1024 * 1024
_MB_MAX = 2**40
_WORKERS_MAX = 1024
_BETWEEN = ":"  # group and instance in the name of a service; no service of an agent has it in its name
_PHASES = {
    "starting": Phase.STARTING,
    "ready": Phase.READY,
    "busy": Phase.READY,
    "stopping": Phase.STOPPING,
    "stopped": Phase.OFFLINE,
}
_OPERATIONAL = {
    Phase.STARTING: "starting",
    Phase.CONFIGURING: "starting",
    Phase.READY: "ready",
    Phase.STOPPING: "stopping",
    Phase.OFFLINE: "stopped",
    Phase.ERROR: "stopped",
}
_HEALTHS = {health.value: health for health in (Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY)}

_Figure = Annotated[float, Meta(ge=0, le=_MB_MAX)]  # a bound for rates and shares too
_Megabytes = Annotated[int, Meta(ge=0, le=_MB_MAX)]
_Name = Annotated[str, Meta(min_length=1, max_length=60)]
_Text = Annotated[str, Meta(max_length=256)]


class HiveInfo(Struct, frozen=True, kw_only=True):
    id: str
    hostname: _Text | None = None
    port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    operational_status: _Text = "ready"
    health_status: _Text = "healthy"
    version: _Text | None = None


class HiveWorker(Struct, frozen=True, kw_only=True):
    """One process. Who cannot tell 0 from unknown says so in `gpu_known`, or leaves figures out."""

    pid: Annotated[int, Meta(ge=1)] | None = None
    group: _Name
    instance: _Name
    cpu_pct: _Figure | None = None
    rss_mb: _Figure | None = None
    io_r_mb_s: _Figure | None = None
    io_w_mb_s: _Figure | None = None
    uptime_s: _Figure | None = None
    gpu_util_pct: _Figure | None = None
    vram_mb: _Megabytes | None = None
    total_vram_mb: _Megabytes | None = None
    gpu_known: bool = True
    model: _Text | None = None

    @property
    def tells_gpu(self) -> bool:
        """Whether what it says of a GPU means anything; one without memory is none."""
        return self.gpu_known and self.total_vram_mb != 0


class HiveHeartbeat(Struct, frozen=True, kw_only=True):
    hive: HiveInfo
    timestamp: datetime | int | None = None
    workers: Annotated[tuple[HiveWorker, ...], Meta(max_length=_WORKERS_MAX)] = field(default_factory=tuple)


class GpuShare(Struct, frozen=True, kw_only=True):
    """What one service takes of the GPUs it uses, and how large these are; None: unknown, or there is no GPU."""

    utilization_percent: float | None = None
    memory_mb: int | None = None
    memory_total_mb: int | None = None


# --- from a hive -----------------------------------------------------------------------------------------------------


def heartbeat_of(message: HiveHeartbeat, known: Node | None, boot_id: str, interval_s: float) -> Heartbeat:
    """`known` is the hive's record so far, if it has one of this boot."""
    hive = message.hive
    node_id = NodeId(hive.id)
    names = _names(message.workers)
    on_gpu = any(worker.vram_mb or worker.total_vram_mb or worker.gpu_util_pct for worker in message.workers)
    was = known.facts.node_type if known else "cpu-worker"
    return Heartbeat(
        facts=NodeFacts(
            node_id=node_id,
            node_type="gpu-worker" if on_gpu else was,
            hostname=hive.hostname,
            address=hive.hostname,
            version=hive.version,
        ),
        boot_id=boot_id,
        seq=max(0, known.seq + 1) if known else 0,
        heartbeat_interval_s=interval_s,
        status=_word(hive.health_status, _HEALTHS, "hive.health_status"),
        phase=_word(hive.operational_status, _PHASES, "hive.operational_status"),
        workers=tuple(_workers(node_id, names, known)),
        services=tuple(_service(name, worker) for name, worker in names.items()),
        processes=tuple(_process(name, worker) for name, worker in names.items() if worker.pid is not None),
        draining=known.draining if known else False,
    )


def _names(workers: Sequence[HiveWorker]) -> dict[str, HiveWorker]:
    """Return them by the names of their services."""
    named: dict[str, HiveWorker] = {}
    for index, worker in enumerate(workers):
        group = check_name(worker.group, f"workers[{index}].group")
        name = f"{group}{_BETWEEN}{check_name(worker.instance, f'workers[{index}].instance')}"
        if name in named:
            raise InvalidInput(
                f"workers[{index}] is a second {worker.group}/{worker.instance}: each is told once",
                field=f"workers[{index}].instance",
            )
        named[name] = worker
    return named


def _service(name: str, worker: HiveWorker) -> Service:
    total_mb, used_mb = worker.total_vram_mb or None, worker.vram_mb if worker.tells_gpu else None
    return Service(
        name=name,
        connector=worker.group,
        status=ServiceStatus.RUNNING,
        models=(Model(name=worker.model, resident=True),) if worker.model else (),
        memory_total_bytes=None if total_mb is None else total_mb * _BYTES_PER_MB,
        memory_free_bytes=None if total_mb is None or used_mb is None else max(0, total_mb - used_mb) * _BYTES_PER_MB,
        pid=worker.pid,
    )


def _process(name: str, worker: HiveWorker) -> ProcessFigures:
    return ProcessFigures(
        name=name,
        group=worker.group,
        pid=worker.pid or 0,
        cpu_percent=worker.cpu_pct,
        rss_mb=worker.rss_mb,
        read_bytes_s=_bytes(worker.io_r_mb_s),
        write_bytes_s=_bytes(worker.io_w_mb_s),
        uptime_s=None if worker.uptime_s is None else int(worker.uptime_s),
        model=worker.model,
        gpu_utilization_percent=worker.gpu_util_pct if worker.tells_gpu else None,
        gpu_memory_mb=worker.vram_mb if worker.tells_gpu else None,
    )


def _workers(node_id: NodeId, told: Mapping[str, HiveWorker], known: Node | None) -> Iterator[Worker]:
    """Each keeps its number as long as it is there: others are not renamed by its end."""
    numbers = {worker.service: worker.index for worker in known.workers} if known else {}
    taken = {numbers[name] for name in told if name in numbers}
    free = (number for number in range(len(told)) if number not in taken)
    for name, worker in told.items():
        index = numbers[name] if name in numbers else next(free)
        yield Worker(
            worker_id=worker_id(node_id, index),
            index=index,
            status=WorkerStatus.IDLE,  # it has no job of ours; that its GPU is busy is a figure, and no news
            service=name,
            connectors=(worker.group,),
            connector_statuses={worker.group: ServiceStatus.RUNNING.value},
        )


def _word(said: str, words: Mapping[str, T], name: str) -> T:
    meant = words.get(said.casefold())
    if meant is None:
        raise InvalidInput(f"{name} must be {', '.join(words)}, got {said!r}", field=name)
    return meant


# --- as a hive would say it ------------------------------------------------------------------------------------------


def operational_status(phase: Phase, *, busy: bool) -> str:
    return "busy" if busy and phase is Phase.READY else _OPERATIONAL[phase]


def workers_told(
    services: Sequence[Service], processes: Sequence[ProcessFigures], gpus: Sequence[Gpu]
) -> tuple[HiveWorker, ...]:
    """Say of each service that runs how it is. One without a process, or an answer, is told no more."""
    figures = {process.name: process for process in processes}
    return tuple(
        _told(service, figures.get(service.name, UNMEASURED), gpus)
        for service in services
        if service.pid is not None or service.status is ServiceStatus.RUNNING
    )


def _told(service: Service, process: ProcessFigures, gpus: Sequence[Gpu]) -> HiveWorker:
    """Where this API has no word for unknown figures of a GPU, 0 stands beside `gpu_known: false`."""
    share = gpu_share(service, process, gpus)
    group = process.group or service.connector
    loaded = [model.name for model in service.models if model.resident is not False]
    return HiveWorker(
        pid=service.pid,
        group=group,
        instance=service.name.removeprefix(f"{group}{_BETWEEN}"),
        cpu_pct=process.cpu_percent,
        rss_mb=process.rss_mb,
        io_r_mb_s=_megabytes(process.read_bytes_s),
        io_w_mb_s=_megabytes(process.write_bytes_s),
        uptime_s=process.uptime_s,
        gpu_util_pct=share.utilization_percent or 0.0,
        vram_mb=share.memory_mb or 0,
        total_vram_mb=share.memory_total_mb or 0,
        gpu_known=share.utilization_percent is not None,
        model=loaded[0] if loaded else process.model,
    )


def gpu_share(service: Service, process: ProcessFigures, gpus: Sequence[Gpu]) -> GpuShare:
    """Take the figures of its process, else what the GPUs tell of those who use them."""
    if not gpus:
        total = service.memory_total_bytes
        return GpuShare(
            utilization_percent=process.gpu_utilization_percent,
            memory_mb=process.gpu_memory_mb,
            memory_total_mb=None if total is None else total // _BYTES_PER_MB,
        )
    owned = [(gpu, owner) for gpu in gpus for owner in gpu.owners or () if _is(owner, service)]
    on = {gpu.index for gpu, _ in owned}
    used = [gpu for gpu in gpus if gpu.index in on or gpu.index == service.gpu_index]
    total_mb = _sum([gpu.memory_total_mb for gpu in used])
    if not owned:  # it takes nothing of its GPU, if that one tells who does
        told = bool(used) and all(gpu.owners is not None for gpu in used)
        return GpuShare(
            utilization_percent=0.0 if told else None, memory_mb=0 if told else None, memory_total_mb=total_mb
        )
    load = _sum([owner.utilization_percent for _, owner in owned])
    return GpuShare(
        utilization_percent=None if load is None else round(load, 1),
        memory_mb=_sum([owner.memory_mb for _, owner in owned]),
        memory_total_mb=total_mb,
    )


def _is(owner: GpuOwner, service: Service) -> bool:
    return owner.service and owner.name == service.name


def _sum(figures: Sequence[N | None]) -> N | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known and len(known) == len(figures) else None


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(megabytes * _BYTES_PER_MB)


def _megabytes(count: int | None) -> float | None:
    return None if count is None else round(count / _BYTES_PER_MB, 3)
