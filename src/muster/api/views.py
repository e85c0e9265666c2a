"""What the API shows: one shape per noun, made from the records in one place."""

from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType, structs
from msgspec.structs import replace

from muster.domain.command import Command
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.job import TERMINAL, Job, JobError, JobStatus, Progress, Requirements, Retry
from muster.domain.model import Model
from muster.domain.node import Health, Node, Phase, Resources
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.registry.workers import FleetWorker, workers_of

_WORKING = frozenset({Health.REGISTERING, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY})


class GpuOwnerView(Struct, frozen=True, kw_only=True):
    """A service of the node, or a process from outside by its name."""

    name: str
    service: bool
    pids: tuple[int, ...]
    memory_mb: int | None
    utilization_percent: float | None


class GpuView(Struct, frozen=True, kw_only=True):
    """Figures that could not be read are null, never 0."""

    index: int
    name: str
    uuid: str | None
    pci: str | None
    parent: str | None
    driver: str | None
    memory_total_mb: int | None
    memory_used_mb: int | None
    utilization_percent: float | None
    temperature_c: float | None
    power_w: float | None
    power_limit_w: float | None
    clock_mhz: int | None
    throttled: tuple[str, ...] | None
    ecc_corrected: int | None
    ecc_uncorrected: int | None
    xid: int | None
    owners: list[GpuOwnerView] | None
    out_of_service: str | None
    simulated: bool


class ResourcesView(Struct, frozen=True, kw_only=True):
    memory_total_mb: int | None
    memory_used_mb: int | None
    cpu_percent: float | None
    disk_total_mb: int | None
    disk_free_mb: int | None


class ModelView(Struct, frozen=True, kw_only=True):
    name: str
    resident: bool | None
    size_bytes: int | None
    context_length: int | None
    parameter_size: str | None
    quantization: str | None
    capabilities: tuple[str, ...]


class ServiceView(Struct, frozen=True, kw_only=True):
    name: str
    connector: str
    status: ServiceStatus
    url: str | None
    models: list[ModelView]
    slots: int | None
    slots_busy: int | None
    managed: bool
    pid: int | None
    gpu_index: int | None
    started_at_ms: int | None
    restarts: int
    error: str | None


class FiguresView(Struct, frozen=True, kw_only=True):
    """How a service that the agent started is doing, its children counted in; null where it could not be read."""

    processes: int | None
    cpu_percent: float | None
    rss_mb: float | None
    read_bytes_s: int | None
    write_bytes_s: int | None
    uptime_s: int | None
    model: str | None


class NodeServiceView(ServiceView, frozen=True, kw_only=True):
    figures: FiguresView | None


class WorkerCapabilities(Struct, frozen=True, kw_only=True):
    services: tuple[str, ...]
    models: list[str]


class WorkerView(Struct, frozen=True, kw_only=True):
    worker_id: str
    id: str
    node_id: str
    machine_id: str
    index: int
    status: WorkerStatus
    slots: int
    gpu_index: int | None
    gpu_utilization_percent: float | None
    gpu_memory_total_mb: int | None
    gpu_memory_free_mb: int | None
    service: str | None
    connectors: tuple[str, ...]
    connector_statuses: dict[str, str]
    capabilities: WorkerCapabilities
    current_jobs: tuple[str, ...]
    jobs_completed: int
    jobs_failed: int
    version: str | None
    artifacts: dict[str, str]  # digests of the models and bundles that its services run on, by name


class NodeView(Struct, frozen=True, kw_only=True):
    """A node as `/api/v1` shows it. `last_seen` and `registered_at` are RFC 3339, `last_seen_ms` since the epoch."""

    id: str
    node_id: str
    type: str
    node_type: str
    hostname: str | None
    address: str | None
    instance_id: str | None
    nebula_ip: str | None
    public_ip: str | None
    region: str | None
    az: str | None
    pool: str | None
    labels: dict[str, str]
    version: str | None
    platform: str | None
    link: str
    connected: bool
    health_status: Health
    reason: str | None
    phase: Phase
    draining: bool
    late: bool
    command_problem: str | None
    last_seen: str
    last_seen_ms: int
    registered_at: str
    uptime_seconds: float
    heartbeat_interval_s: float
    cpu_cores: int | None
    resources: ResourcesView
    gpu_count: int
    gpus: list[GpuView]
    loaded_models: list[str]
    services: list[NodeServiceView]
    workers: list[WorkerView]


class MachineView(Struct, frozen=True, kw_only=True):
    """A node as the monitor shows it; `status` joins phase and health into one word."""

    machine_id: str
    id: str
    status: str
    phase: Phase
    health_status: Health
    reason: str | None
    connected: bool
    draining: bool
    late: bool
    last_seen: int
    uptime_seconds: float
    hostname: str | None
    link: str
    version: str | None
    labels: dict[str, str]
    pool: str | None
    gpu_count: int
    gpu_model: str | None
    gpu_memory_gb: float | None
    gpus: list[GpuView]
    cpu_cores: int | None
    resources: ResourcesView
    services: list[str]
    service_details: list[ServiceView]
    models: list[str]


class JobView(Struct, frozen=True, kw_only=True):
    """A job; lists and live events leave out `payload` and `result`. Times in ms since the epoch.

    `waiting_for` counts the jobs that have to end before; `reason` says why nobody can run it and what would help.
    """

    id: str
    job_id: str
    service_required: str
    priority: int
    requirements: Requirements
    status: JobStatus
    worker_id: str | None
    attempt: int
    retry_count: int
    max_retries: int
    timeout_s: float
    created_at: int
    started_at: int | None
    completed_at: int | None
    next_attempt_at: int | None
    progress: Progress | None
    error: JobError | None
    workflow_id: str | None
    workflow_priority: int | None
    workflow_datetime: int | None
    step_number: int | None
    customer_id: str | None
    run_at: int | None = None
    deadline_s: float | None = None
    retry: Retry | None = None
    depends_on: tuple[str, ...] = ()
    on_failure: str = "fail"
    waiting_for: int = 0
    reason: str | None = None
    payload: Any | UnsetType = UNSET
    result: Raw | UnsetType | None = UNSET

    @property
    def final(self) -> bool:
        return self.status in TERMINAL

    @property
    def version(self) -> str:
        """Name this state of the job: the id of the event that tells it, the same at every control plane."""
        moved_at = self.progress.at_ms if self.progress is not None else None
        return f"{self.attempt}.{self.status}.{self.completed_at or self.next_attempt_at or moved_at or 0}"

    @property
    def machine_id(self) -> str | None:
        return self.worker_id.rsplit("-worker-", 1)[0] if self.worker_id else None


def rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def gpu_view(gpu: Gpu) -> GpuView:
    return GpuView(
        index=gpu.index,
        name=gpu.name,
        uuid=gpu.uuid,
        pci=gpu.pci,
        parent=gpu.parent,
        driver=gpu.driver,
        memory_total_mb=gpu.memory_total_mb,
        memory_used_mb=gpu.memory_used_mb,
        utilization_percent=gpu.utilization_percent,
        temperature_c=gpu.temperature_c,
        power_w=gpu.power_w,
        power_limit_w=gpu.power_limit_w,
        clock_mhz=gpu.clock_mhz,
        throttled=gpu.throttled,
        ecc_corrected=gpu.ecc_corrected,
        ecc_uncorrected=gpu.ecc_uncorrected,
        xid=gpu.xid,
        owners=None if gpu.owners is None else [gpu_owner_view(owner) for owner in gpu.owners],
        out_of_service=gpu.out_of_service,
        simulated=gpu.simulated,
    )


def gpu_owner_view(owner: GpuOwner) -> GpuOwnerView:
    return GpuOwnerView(
        name=owner.name,
        service=owner.service,
        pids=owner.pids,
        memory_mb=owner.memory_mb,
        utilization_percent=owner.utilization_percent,
    )


def resources_view(resources: Resources) -> ResourcesView:
    return ResourcesView(
        memory_total_mb=resources.memory_total_mb,
        memory_used_mb=resources.memory_used_mb,
        cpu_percent=resources.cpu_percent,
        disk_total_mb=resources.disk_total_mb,
        disk_free_mb=resources.disk_free_mb,
    )


def model_view(model: Model) -> ModelView:
    return ModelView(
        name=model.name,
        resident=model.resident,
        size_bytes=model.size_bytes,
        context_length=model.context_length,
        parameter_size=model.parameter_size,
        quantization=model.quantization,
        capabilities=model.capabilities,
    )


def service_view(service: Service) -> ServiceView:
    return ServiceView(
        name=service.name,
        connector=service.connector,
        status=service.status,
        url=service.url,
        models=[model_view(model) for model in service.models],
        slots=service.slots,
        slots_busy=service.slots_busy,
        managed=service.managed,
        pid=service.pid,
        gpu_index=service.gpu_index,
        started_at_ms=service.started_at_ms,
        restarts=service.restarts,
        error=service.error,
    )


def worker_status(node: Node, worker: Worker) -> WorkerStatus:
    return worker.status if node.health in _WORKING else WorkerStatus.STOPPED


def node_service_views(node: Node) -> list[NodeServiceView]:
    figures = {each.name: each for each in node.processes}
    return [
        NodeServiceView(**structs.asdict(service_view(service)), figures=figures_view(figures.get(service.name)))
        for service in node.services
    ]


def figures_view(figures: ProcessFigures | None) -> FiguresView | None:
    if figures is None:
        return None
    return FiguresView(
        processes=figures.processes,
        cpu_percent=figures.cpu_percent,
        rss_mb=figures.rss_mb,
        read_bytes_s=figures.read_bytes_s,
        write_bytes_s=figures.write_bytes_s,
        uptime_s=figures.uptime_s,
        model=figures.model,
    )


def worker_view(node: Node, worker: Worker, known: FleetWorker | None) -> WorkerView:
    """`known` is what is heard of it; None: its node is not heard."""
    alive = node.health in _WORKING
    models = sorted(known.models) if known is not None and worker.service is not None else model_names(node)
    return WorkerView(
        worker_id=worker.worker_id,
        id=worker.worker_id,
        node_id=node.node_id,
        machine_id=node.node_id,
        index=worker.index,
        status=known.status if known is not None else worker_status(node, worker),
        slots=worker.slots,
        gpu_index=worker.gpu_index,
        gpu_utilization_percent=None if known is None else known.gpu_utilization_percent,
        gpu_memory_total_mb=None if known is None else known.memory_total_mb,
        gpu_memory_free_mb=None if known is None else known.memory_free_mb,
        service=worker.service,
        connectors=worker.connectors,
        connector_statuses=worker.connector_statuses,
        capabilities=WorkerCapabilities(services=worker.connectors, models=models),
        current_jobs=worker.current_jobs if alive else (),
        jobs_completed=worker.jobs_completed,
        jobs_failed=worker.jobs_failed,
        version=node.facts.version,
        artifacts=_artifacts_of(node, worker),
    )


def _artifacts_of(node: Node, worker: Worker) -> dict[str, str]:
    """Return what is under the services that it drives: those of its GPU, and those of the node."""
    driven = {
        service.name
        for service in node.services
        if service.connector in worker.connectors and service.gpu_index in {None, worker.gpu_index}
    }
    return {
        artifact.name: artifact.digest
        for artifact in node.artifacts.kept
        if artifact.digest is not None and not driven.isdisjoint(artifact.services)
    }


def worker_views(node: Node) -> list[WorkerView]:
    known = {found.worker.worker_id: found for found in workers_of(node)}
    return [worker_view(node, worker, known.get(worker.worker_id)) for worker in node.workers]


def model_names(node: Node) -> list[str]:
    return sorted({model.name for service in _running(node) for model in service.models})


def _running(node: Node) -> list[Service]:
    """Return the services that answer: what another one offered before is not on offer."""
    return [service for service in node.services if service.status is ServiceStatus.RUNNING]


def node_view(node: Node, *, late: bool, now_ms: int, unanswered: Command | None = None) -> NodeView:
    """`unanswered` is the command that expired last without an answer."""
    facts = node.facts
    return NodeView(
        id=facts.node_id,
        node_id=facts.node_id,
        type=facts.node_type,
        node_type=facts.node_type,
        hostname=facts.hostname,
        address=facts.address,
        instance_id=facts.instance_id,
        nebula_ip=facts.nebula_ip,
        public_ip=facts.public_ip,
        region=facts.region,
        az=facts.az,
        pool=facts.pool,
        labels=facts.labels,
        version=facts.version,
        platform=facts.platform,
        link=node.link,
        connected=node.connected,
        health_status=node.health,
        reason=node.reason,
        phase=node.phase,
        draining=node.draining,
        late=late,
        command_problem=None
        if unanswered is None
        else f"{unanswered.command} ({unanswered.command_id}): {unanswered.error}",
        last_seen=rfc3339(node.last_seen_ms),
        last_seen_ms=node.last_seen_ms,
        registered_at=rfc3339(node.registered_at_ms),
        uptime_seconds=_uptime_s(node, now_ms),
        heartbeat_interval_s=node.heartbeat_interval_s,
        cpu_cores=facts.cpu_cores,
        resources=resources_view(node.resources),
        gpu_count=len(node.gpus),
        gpus=[gpu_view(gpu) for gpu in node.gpus],
        loaded_models=sorted({m.name for s in _running(node) for m in s.models if m.resident}),
        services=node_service_views(node),
        workers=worker_views(node),
    )


def machine_view(node: Node, *, late: bool, now_ms: int) -> MachineView:
    facts = node.facts
    first = node.gpus[0] if node.gpus else None
    return MachineView(
        machine_id=facts.node_id,
        id=facts.node_id,
        status=machine_status(node),
        phase=node.phase,
        health_status=node.health,
        reason=node.reason,
        connected=node.connected,
        draining=node.draining,
        late=late,
        last_seen=node.last_seen_ms,
        uptime_seconds=_uptime_s(node, now_ms),
        hostname=facts.hostname,
        link=node.link,
        version=facts.version,
        labels=facts.labels,
        pool=facts.pool,
        gpu_count=len(node.gpus),
        gpu_model=first.name if first else None,
        gpu_memory_gb=round(first.memory_total_mb / 1024, 1) if first and first.memory_total_mb else None,
        gpus=[gpu_view(gpu) for gpu in node.gpus],
        cpu_cores=facts.cpu_cores,
        resources=resources_view(node.resources),
        services=sorted(
            {name for worker in node.workers for name in worker.connectors}
            | {name for service in node.services for name in (service.name, service.connector)}
        ),
        service_details=[service_view(service) for service in node.services],
        models=model_names(node),
    )


def machine_status(node: Node) -> str:
    if node.health not in _WORKING:
        return Phase.OFFLINE
    if node.phase is Phase.CONFIGURING:
        return Phase.STARTING
    return node.phase


def job_view(job: Job, *, whole: bool) -> JobView:
    """`whole`: with payload, result and the text of an answer that is being written."""
    spec, state = job.spec, job.state
    return JobView(
        id=spec.job_id,
        job_id=spec.job_id,
        service_required=spec.service_required,
        priority=spec.priority,
        requirements=spec.requirements,
        status=state.status,
        worker_id=state.worker_id,
        attempt=state.attempt,
        retry_count=state.retry_count,
        max_retries=spec.max_retries,
        timeout_s=spec.timeout_s,
        created_at=spec.created_at,
        started_at=state.started_at,
        completed_at=state.completed_at,
        next_attempt_at=state.next_attempt_at,
        progress=state.progress if whole or state.progress is None else replace(state.progress, text=None, text_at=0),
        error=state.error,
        workflow_id=spec.workflow_id,
        workflow_priority=spec.workflow_priority,
        workflow_datetime=spec.workflow_datetime,
        step_number=spec.step_number,
        customer_id=spec.customer_id,
        run_at=spec.run_at,
        deadline_s=spec.deadline_s,
        retry=spec.retry,
        depends_on=spec.depends_on,
        on_failure=spec.on_failure,
        waiting_for=state.waiting_for,
        reason=state.reason,
        payload=spec.payload if whole else UNSET,
        result=(None if isinstance(state.result, UnsetType) else state.result) if whole else UNSET,
    )


def _uptime_s(node: Node, now_ms: int) -> float:
    """How long this boot of the agent has been heard: until now, or until it fell silent."""
    until_ms = now_ms if node.health in _WORKING else node.last_seen_ms
    return max(0.0, (until_ms - node.booted_at_ms) / 1000) if node.booted_at_ms else 0.0
