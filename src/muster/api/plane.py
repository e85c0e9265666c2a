"""The parts of the control plane that the API speaks with; app.py fills it, handlers ask for single parts by name."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from msgspec import Struct, field

from muster.access.book import Caller
from muster.api.http_figures import HttpFigures
from muster.api.state import Scenery
from muster.api.task_stream import TaskStreams
from muster.clock import Clock
from muster.control.access import Access
from muster.control.batches.service import BatchDesk
from muster.control.commands import CommandService
from muster.control.files import FileService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.history import History
from muster.control.fleet.hives import Hives
from muster.control.fleet.pools import PoolNodes
from muster.control.jobs.queues import QueueService
from muster.control.jobs.schedules import ScheduleService
from muster.control.jobs.service import JobService
from muster.control.jobs.tasks import TaskDesk
from muster.control.logs.desk import LogDesk
from muster.control.metering import Metering
from muster.control.models.loader import ModelLoader
from muster.control.system import SystemDesk
from muster.control.webhooks.service import WebhookDesk
from muster.domain.trace import Tracer
from muster.errors import SwitchedOff
from muster.events.hub import Hub
from muster.events.telemetry import Telemetry
from muster.gateway import GatewayView, RequestView
from muster.metrics import Metric
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision
from muster.placement.wish import Wish
from muster.ports import EventLog, JobKind, NodeLink, RentedMachine

Note = Callable[[str, dict[str, Any]], None]  # what is noted of a request: event and facts
Decide = Callable[[Wish, Sequence[Candidate] | None], Decision]


class TelemetryParts(Struct, frozen=True, kw_only=True):
    """What takes in the telemetry of hives, keeps that of every node for a while, and tells it on."""

    hives: Hives
    history: History
    stream: Telemetry


class Plane(Struct, frozen=True, kw_only=True):
    fleet: Fleet
    ingest: NodeLink
    jobs: JobService
    queues: QueueService
    schedules: ScheduleService
    commands: CommandService
    events: EventLog
    hub: Hub
    scenery: Scenery
    clock: Clock
    metrics: Callable[[], Iterable[Metric]]
    web_dir: Path
    access: Access
    request_bytes_max: int
    tasks: TaskDesk
    task_streams: TaskStreams
    decide: Decide
    gateway: Callable[[], GatewayView]
    request: Callable[[str], Awaitable[RequestView | None]]
    webhooks: WebhookDesk
    batches: BatchDesk
    models: ModelLoader
    telemetry: TelemetryParts
    metering: Metering
    pool_nodes: PoolNodes | None = None  # None: /v2 nodes are switched off
    fleet_api: bool = True
    machine: RentedMachine | None = None
    files: FileService | None = None
    job_kinds: Sequence[JobKind] = ()
    broken_connectors: Mapping[str, str] = {}
    tracer: Tracer | None = None
    http: HttpFigures = field(default_factory=HttpFigures)
    logs: LogDesk
    system: SystemDesk
    note: Note

    @property
    def pools(self) -> PoolNodes:
        if self.pool_nodes is None:
            raise SwitchedOff("nodes and pools of /v2 are switched off here (setting cloud_profile)")
        return self.pool_nodes


ThePlane = NamedDependency[Plane]
TheCaller = NamedDependency[Caller]
AnyRequest = Request[Any, Any, State]
