"""What hives say over `/v1/hive-heartbeat`, and the same in the fleet's own words.

A worker of a hive is a process: here it is a service of its node, and the one worker that drives it. Their own clock has
no meaning here, and neither they nor their messages have numbers: the control plane counts for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from msgspec import Meta, Struct, field

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import Health, Node, NodeFacts, Phase
from muster.domain.service import Footprint, Service, ServiceStatus
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
_SAME_START_MS = 5000  # a start that moves by less is the same one, seen through two clocks
_PHASES = {
    "starting": Phase.STARTING,
    "ready": Phase.READY,
    "busy": Phase.READY,
    "stopping": Phase.STOPPING,
    "stopped": Phase.OFFLINE,
}
_HEALTHS = {health.value: health for health in (Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY)}

_Figure = Annotated[float, Meta(ge=0)]
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
    rss_mb: _Megabytes | None = None
    io_r_mb_s: _Figure | None = None
    io_w_mb_s: _Figure | None = None
    uptime_s: _Figure | None = None
    gpu_util_pct: _Figure | None = None
    vram_mb: _Megabytes | None = None
    total_vram_mb: _Megabytes | None = None
    gpu_known: bool = True
    model: _Text | None = None


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


def heartbeat_of(message: HiveHeartbeat, known: Node | None, boot_id: str, interval_s: float, now_ms: int) -> Heartbeat:
    """`known` is the hive's record so far, if it has one of this boot."""
    hive = message.hive
    node_id = NodeId(hive.id)
    services = tuple(_services(message.workers, known, now_ms))
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
        workers=tuple(_workers(node_id, message.workers, services, known)),
        services=services,
        draining=known.draining if known else False,
    )


def _services(workers: Sequence[HiveWorker], known: Node | None, now_ms: int) -> Iterator[Service]:
    before = {service.name: service for service in known.services} if known else {}
    seen: set[str] = set()
    for index, worker in enumerate(workers):
        name = _service_name(worker, index)
        if name in seen:
            raise InvalidInput(
                f"workers[{index}] is a second {worker.group}/{worker.instance}: each is told once",
                field=f"workers[{index}].instance",
            )
        seen.add(name)
        yield _service(worker, name, before.get(name), now_ms)


def _service_name(worker: HiveWorker, index: int) -> str:
    group = check_name(worker.group, f"workers[{index}].group")
    return f"{group}-{check_name(worker.instance, f'workers[{index}].instance')}"


def _service(worker: HiveWorker, name: str, before: Service | None, now_ms: int) -> Service:
    gpu_known = worker.gpu_known and worker.total_vram_mb != 0
    total_mb = worker.total_vram_mb or None
    used_mb = worker.vram_mb if gpu_known else None
    return Service(
        name=name,
        connector=worker.group,
        status=ServiceStatus.RUNNING,
        models=(Model(name=worker.model, resident=True),) if worker.model else (),
        memory_total_bytes=None if total_mb is None else total_mb * _BYTES_PER_MB,
        memory_free_bytes=None if total_mb is None or used_mb is None else max(0, total_mb - used_mb) * _BYTES_PER_MB,
        pid=worker.pid,
        footprint=Footprint(
            cpu_percent=worker.cpu_pct,
            memory_mb=worker.rss_mb,
            io_read_mb_s=worker.io_r_mb_s,
            io_write_mb_s=worker.io_w_mb_s,
            gpu_utilization_percent=worker.gpu_util_pct if gpu_known else None,
            gpu_memory_mb=used_mb,
        ),
        started_at_ms=_started_at_ms(worker, before, now_ms),
    )


def _started_at_ms(worker: HiveWorker, before: Service | None, now_ms: int) -> int | None:
    if worker.uptime_s is None:
        return None
    started_ms = now_ms - round(worker.uptime_s * 1000)
    if before is not None and before.started_at_ms is not None and before.pid == worker.pid:
        return before.started_at_ms if abs(before.started_at_ms - started_ms) < _SAME_START_MS else started_ms
    return started_ms


def _workers(
    node_id: NodeId, told: Sequence[HiveWorker], services: Sequence[Service], known: Node | None
) -> Iterator[Worker]:
    """Each keeps its number as long as it is there: others are not renamed by its end."""
    numbers = {worker.service: worker.index for worker in known.workers} if known else {}
    taken = {numbers[service.name] for service in services if service.name in numbers}
    free = iter(number for number in range(len(services) + len(taken)) if number not in taken)
    for worker, service in zip(told, services, strict=True):
        index = numbers.get(service.name)
        index = next(free) if index is None else index
        yield Worker(
            worker_id=worker_id(node_id, index),
            index=index,
            status=WorkerStatus.BUSY if worker.gpu_util_pct else WorkerStatus.IDLE,
            service=service.name,
            connectors=(worker.group,),
            connector_statuses={worker.group: service.status.value},
        )


def _word(said: str, words: Mapping[str, T], name: str) -> T:
    meant = words.get(said.casefold())
    if meant is None:
        raise InvalidInput(f"{name} must be {', '.join(words)}, got {said!r}", field=name)
    return meant


# --- as a hive would say it ------------------------------------------------------------------------------------------


def workers_told(services: Sequence[Service], gpus: Sequence[Gpu], now_ms: int) -> tuple[HiveWorker, ...]:
    """Say of each service that runs how it is. One without a process, or an answer, is told no more."""
    return tuple(
        _told(service, gpu_share(service, gpus), now_ms)
        for service in services
        if service.pid is not None or service.status is ServiceStatus.RUNNING
    )


def _told(service: Service, share: GpuShare, now_ms: int) -> HiveWorker:
    """Where this API has no word for unknown figures of a GPU, 0 stands beside `gpu_known: false`."""
    taken = service.footprint or Footprint()
    started_ms = service.started_at_ms
    loaded = [model.name for model in service.models if model.resident is not False]
    return HiveWorker(
        pid=service.pid,
        group=service.connector,
        instance=service.name.removeprefix(f"{service.connector}-"),
        cpu_pct=taken.cpu_percent,
        rss_mb=taken.memory_mb,
        io_r_mb_s=taken.io_read_mb_s,
        io_w_mb_s=taken.io_write_mb_s,
        uptime_s=None if started_ms is None else max(0, now_ms - started_ms) // 1000,
        gpu_util_pct=share.utilization_percent or 0.0,
        vram_mb=share.memory_mb or 0,
        total_vram_mb=share.memory_total_mb or 0,
        gpu_known=share.utilization_percent is not None,
        model=loaded[0] if loaded else None,
    )


def gpu_share(service: Service, gpus: Sequence[Gpu]) -> GpuShare:
    """Take the node's own figures of the service, else what the GPUs tell of those who use them."""
    taken = service.footprint or Footprint()
    if taken.gpu_utilization_percent is not None or taken.gpu_memory_mb is not None or not gpus:
        total = service.memory_total_bytes
        return GpuShare(
            utilization_percent=taken.gpu_utilization_percent,
            memory_mb=taken.gpu_memory_mb,
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
