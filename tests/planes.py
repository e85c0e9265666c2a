"""A control plane in memory: the real services and API over the twin of the store, on a clock that tests move."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.types import ASGIApp, Receive, Scope, Send

import muster
from muster.api.asgi import framework
from muster.api.entry import Entry
from muster.api.hives import TelemetryScenery
from muster.api.plane import Plane, TelemetryParts
from muster.api.state import GatewayFigures, Scenery
from muster.api.task_stream import TaskStreams
from muster.api.webhooks import told_job
from muster.commands.book import CommandBook
from muster.control.access import Access
from muster.control.batches.service import BatchDesk
from muster.control.commands import CommandService
from muster.control.files import FileService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.history import History
from muster.control.fleet.hives import Hives
from muster.control.fleet.pools import PoolNodes
from muster.control.ingest import Ingest
from muster.control.jobs.queues import QueueService
from muster.control.jobs.schedules import ScheduleService
from muster.control.jobs.service import PROGRESS_TOPIC, JobService, JobStores, PayloadCheck
from muster.control.jobs.stopper import Stopper
from muster.control.jobs.tasks import TaskDesk
from muster.control.leader import LEADER
from muster.control.logs.desk import LogDesk
from muster.control.metering import Metering
from muster.control.models.loader import ModelLoader
from muster.control.models.uses import Uses
from muster.control.recorder import Recorder
from muster.control.sweep import Sweep
from muster.control.system import PlaneReport, SystemDesk
from muster.control.webhooks.pump import Outlet
from muster.control.webhooks.service import WebhookDesk
from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, JobSpec, JobStatus
from muster.domain.node import NodeFacts, Phase
from muster.domain.trace import Tracer
from muster.domain.worker import Worker, WorkerStatus
from muster.events.hub import Hub, HubLimits
from muster.events.telemetry import Telemetry, TelemetryLimits
from muster.gateway.figures.decisions import RequestView
from muster.gateway.figures.usage import GatewayView, Usage
from muster.gateway.routing.route import Router
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.jobs.retry import RetryPolicy
from muster.logs.shelf import LogShelf
from muster.placement.scores import Strategy
from muster.ports import BrokerProbe, JobKind, StoreProbe
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.stores.files.directory import DirectoryFiles
from muster.stores.memory import MemoryStore
from muster.system import SystemClock
from muster.webhooks.outcome import Answer
from muster.wire import ClaimReply, ClaimRequest, Heartbeat, OpenSession, Outcome
from muster.wire.hives import LINK as HIVE_LINK
from muster.wire.pools import LINK as V2_LINK
from tests.clocks import ManualClock

LEASE_S = 10.0
REQUEST_BYTES_MAX = 10_000
FILE_BYTES_MAX = 100_000
NO_FOLDER = Path("/nonexistent/files")
WEB_DIR = Path(muster.__file__).parent / "web"


# Made once and not for each test, for it takes longer than most of them: its plane is that of the request.
_current: ContextVar[Plane] = ContextVar("plane")


def _asked_plane() -> Plane:
    return _current.get()


@cache
def _framework() -> Litestar:
    return framework(_asked_plane, WEB_DIR, REQUEST_BYTES_MAX)


class Posted:
    """What webhooks would have sent; every receiver says `answer`."""

    def __init__(self) -> None:
        self.answer = Answer(status=204)
        self.sent: list[tuple[str, dict[str, str], bytes]] = []

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        self.sent.append((url, headers, body))
        return self.answer


class PlaneUnderTest:
    def __init__(
        self,
        *,
        token: str = "",
        requests_per_s_max: float = 0.0,
        checks: dict[str, PayloadCheck] | None = None,
        waiting_max: int = 100,
        cloud_profile: bool = True,
        fleet_api: bool = True,
        beside: "PlaneUnderTest | None" = None,
        files: Path | None = None,
        kinds: Sequence[JobKind] = (),
        may_begin: Callable[[WorkerId, ClaimedJob], bool] = lambda _, __: True,
        tracer: Tracer | None = None,
        logs: Path | None = None,
        plane_id: str = "plane-1",
        probe: StoreProbe | None = None,
    ) -> None:
        """`beside` is another control plane, whose clock and store this one has as well."""
        self.clock: ManualClock = beside.clock if beside else ManualClock()
        self.store: MemoryStore = beside.store if beside else MemoryStore(self.clock)
        self.posted = Posted()
        self.noted: list[dict[str, Any]] = []  # of requests
        self.recorder = Recorder(self.store.nodes, self.store.log)
        self.fleet = Fleet(NodeBook(Limits()), self.recorder, self.clock)
        self.commands = CommandService(
            CommandBook(),
            self.store.commands,
            self.store.bus,
            self.fleet,
            self.recorder,
            self.clock,
            random.Random(8),
            {"cancel_job": lambda args: self.jobs.end(JobId(args["job_id"]))},
        )
        self.logs = LogDesk(
            self.fleet,
            self.store.bus,
            self.clock,
            random.Random(11),
            LogShelf(logs or NO_FOLDER, self.clock),
            plane_id=plane_id,
            planes=list,
        )
        self.commands.send_along(self.logs.asks_for)
        self.logs.on_ask(self.commands.wake)
        self.ingest = Ingest(
            self.fleet, self.commands, self.recorder, self.clock, link="http", take_logs=self.logs.take
        )
        rng = random.Random(7)
        policy = RetryPolicy(jitter=0.0)
        self.webhooks = self._webhooks()
        self.in_use: list[tuple[str, str]] = []  # by the gateway: worker and model of each request
        self.in_flight: dict[str, int] = {}
        self.jobs = JobService(
            JobStores(queue=self.store.jobs, index=self.store.jobs, upkeep=self.store.jobs, lines=self.store.jobs),
            self.store.bus,
            self.clock,
            rng,
            lease_s=LEASE_S,
            retry_policy=policy,
            payload_bytes_max=1000,
            payload_checks=checks or {kind.name: kind.check for kind in kinds},
            addresses=self.webhooks.addresses,
            may_begin=may_begin,
            tracer=tracer,
        )
        self.jobs.on_stop(Stopper(self.commands).stop)
        self.schedules = ScheduleService(self.store.schedules, self.jobs, self.clock)
        self.sweep = Sweep(
            self.fleet,
            self.store.jobs,
            self.store.jobs,
            self.clock,
            rng,
            every_s=0.01,
            retry_policy=policy,
            retention_s=3600.0,
            ended_max=100,
            also=(self.schedules.tick,),
            stop_running=self.jobs.stop_running,
        )
        self.access = Access(
            self.store.tokens,
            self.store.bus,
            self.clock,
            rng,
            bootstrap=token,
            requests_per_s_max=requests_per_s_max,
        )
        self.gateway_figures: Callable[[], GatewayFigures] = GatewayFigures
        self.metering = Metering(
            self.store.usage, self.store.jobs, self.access, self.clock, plane_id=plane_id, retention_s=30 * 86_400.0
        )
        self.jobs.on_done(self.metering.job_done)
        self.jobs.check_models_by(self.access.check_models)
        self.jobs.bound_priorities_by(self.access.priority_max)
        self.models = ModelLoader(
            self.fleet,
            self.commands,
            Uses(lambda: self.in_use, lambda: self.in_flight, self.clock),
            self.clock,
            timeout_s=5.0,
            leads=lambda: True,
        )
        self.scenery = Scenery(self.fleet, self.jobs, self.clock, self._gateway_figures)
        self.hub = Hub(
            self.store.log,
            self.store.bus,
            self.scenery,
            self.clock,
            HubLimits(
                join_s=0.005, stats_every_s=0.05, signs_every_s=0.05, dirty_jobs_max=20, ring_entries=50, retry_s=0.01
            ),
            progress_topic=PROGRESS_TOPIC,
        )
        self.fleet.on_change(self.hub.nodes_changed)
        # Streams go by real time, whatever the plane's clock says.
        self.telemetry_scenery = TelemetryScenery(self.fleet, self.clock)
        self.telemetry = Telemetry(
            self.telemetry_scenery, SystemClock(), TelemetryLimits(join_s=0.005, queen_every_s=0.05)
        )
        self.fleet.on_change(self.telemetry.nodes_changed)
        self.history = History(self.fleet.book, self.clock)
        self.fleet.on_change(self.history.nodes_changed)
        hives = Ingest(self.fleet, self.commands, self.recorder, self.clock, link=HIVE_LINK)
        over_v2 = Ingest(self.fleet, self.commands, self.recorder, self.clock, link=V2_LINK)
        tasks = TaskDesk(self.jobs, self.fleet, waiting_max=waiting_max)
        self.files = self._files(files or NO_FOLDER, rng)
        self.broker: BrokerProbe | None = None
        self.gateway_view: Callable[[], GatewayView] = lambda: Usage().view({}, [], [])
        self.request_view: Callable[[str], RequestView | None] = lambda _: None
        self.plane = Plane(
            fleet=self.fleet,
            ingest=self.ingest,
            jobs=self.jobs,
            queues=QueueService(self.store.jobs, self.jobs, self.clock),
            schedules=self.schedules,
            commands=self.commands,
            events=self.store.log,
            hub=self.hub,
            scenery=self.scenery,
            clock=self.clock,
            metrics=tuple,
            web_dir=WEB_DIR,
            access=self.access,
            request_bytes_max=REQUEST_BYTES_MAX,
            tasks=tasks,
            task_streams=TaskStreams(self.jobs, self.hub, tasks.ended),
            decide=Router(self.fleet, strategy=Strategy.LEAST_LOADED, rng=rng, clock=self.clock).decide,
            gateway=self._gateway,
            request=self._request,
            pool_nodes=PoolNodes(self.fleet, over_v2, self.clock, rng, interval_s=10.0) if cloud_profile else None,
            fleet_api=fleet_api,
            webhooks=self.webhooks,
            models=self.models,
            telemetry=TelemetryParts(
                hives=Hives(self.fleet, hives, self.clock, rng, interval_s=10.0),
                history=self.history,
                stream=self.telemetry,
            ),
            batches=BatchDesk(self.store.batches, self.files, self.store.bus, self.clock, random.Random(10)),
            files=self.files if files else None,
            job_kinds=kinds,
            tracer=tracer,
            metering=self.metering,
            logs=self.logs,
            system=self._system(plane_id, probe or self.store.probe),
            note=lambda event, facts: self.noted.append({"event": event} | facts),
        )

    async def _request(self, request_id: str) -> RequestView | None:
        return self.request_view(request_id)

    def _gateway(self) -> GatewayView:
        return self.gateway_view()

    def _gateway_figures(self) -> GatewayFigures:
        return self.gateway_figures()

    def _system(self, plane_id: str, probe: StoreProbe) -> SystemDesk:
        here = PlaneReport(
            plane_id=plane_id, here=True, version="0", hostname="here", started_at_ms=self.clock.now_ms()
        )
        return SystemDesk(
            self.fleet,
            probe,
            SystemClock(),
            address="memory",
            embedded=True,
            planes=lambda: [here],
            leading=lambda: self.store.leases.holder(LEADER),
            broker=lambda: self.broker,
        )

    def _webhooks(self) -> WebhookDesk:
        outlet = Outlet(jobs=self.store.jobs, post=self.posted, show=told_job, clock=self.clock)
        return WebhookDesk(
            self.store.webhooks, self.store.log, self.store.bus, outlet, self.clock, random.Random(9), private=False
        )

    def _files(self, folder: Path, rng: random.Random) -> FileService:
        return FileService(
            DirectoryFiles(folder),
            self.jobs,
            self.clock,
            rng,
            file_bytes_max=FILE_BYTES_MAX,
            files_bytes_max=3 * FILE_BYTES_MAX,
            retention_s=3600.0,
        )

    @property
    def app(self) -> ASGIApp:
        door = Entry(_framework(), self.access, self.plane.http, self.plane.note)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            _current.set(self.plane)
            await door(scope, receive, send)

        return app

    async def open_session(self, session: str = "s1", node: str = "n1", **able: object) -> None:
        capability = Capability(services=("simulation",), **able)  # type: ignore[arg-type]  # a test's own shorthand
        await self.jobs.open_session(
            OpenSession(
                node_id=NodeId(node),
                worker_id=WorkerId(f"{node}-worker-0"),
                session_id=SessionId(session),
                capability=capability,
            )
        )

    async def claim(
        self, session: str = "s1", node: str = "n1", want: int = 1, done: tuple[Outcome, ...] = (), wait_s: float = 0.0
    ) -> ClaimReply:
        return await self.jobs.claim(
            ClaimRequest(
                session_id=SessionId(session),
                worker_id=WorkerId(f"{node}-worker-0"),
                want=want,
                done=done,
                wait_s=wait_s,
            )
        )

    async def submit(self, job_id: str = "", **fields: object) -> JobId:
        base: dict[str, object] = {"job_id": JobId(job_id), "service_required": "simulation"}
        (submitted,) = await self.jobs.submit([JobSpec(**(base | fields))])  # type: ignore[arg-type]  # as above
        return submitted.job_id

    async def status(self, job_id: JobId) -> JobStatus:
        return (await self.jobs.get(job_id)).state.status

    async def heartbeat(self, node: str = "n1", seq: int = 1, **fields: object) -> None:
        base: dict[str, object] = {
            "facts": NodeFacts(node_id=NodeId(node)),
            "boot_id": f"{node}-boot",
            "seq": seq,
            "heartbeat_interval_s": 10.0,
            "phase": Phase.READY,
            "workers": (Worker(worker_id=WorkerId(f"{node}-worker-0"), index=0, status=WorkerStatus.IDLE),),
        }
        await self.ingest.heartbeat(Heartbeat(**(base | fields)))  # type: ignore[arg-type]  # as above

    async def recorded(self) -> list[str]:
        """Write what is due and return the kinds of all events so far."""
        await self.recorder.flush()
        return [entry.event.kind for entry in await self.store.log.read("0", 10_000)]


@asynccontextmanager
async def running_plane(
    *, token: str = "", requests_per_s_max: float = 0.0, checks: dict[str, PayloadCheck] | None = None, **options: Any
) -> AsyncIterator[PlaneUnderTest]:
    """Start what has loops, but not the sweep: tests call it."""
    plane = PlaneUnderTest(token=token, requests_per_s_max=requests_per_s_max, checks=checks, **options)
    services = (plane.recorder, plane.access, plane.jobs, plane.commands, plane.hub, plane.telemetry, plane.logs)
    for service in services:
        await service.start()
    yield plane
    for service in reversed(services):
        await service.stop()
