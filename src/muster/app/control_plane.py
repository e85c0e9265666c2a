"""The control plane put together: which adapter serves which port."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

import muster
from muster.api.asgi import build_app
from muster.api.plane import Plane
from muster.api.state import Scenery
from muster.api.task_stream import TaskStreams
from muster.app.batches import Batches
from muster.app.broker import Broker
from muster.app.cloud import Cloud
from muster.app.door import Draining, open_front
from muster.app.files import open_file_store
from muster.app.gateway_workers import GatewayWorkers, Place
from muster.app.groundwork import Base, Groundwork, Work
from muster.app.grpc_port import GrpcPort
from muster.app.live import figures_of, open_hub, telemetry_parts
from muster.app.machine import gateway_environment
from muster.app.metrics import metrics_of
from muster.app.plane_logs import PlaneLogs
from muster.app.process import Progress, StateFile, make_data_dir
from muster.app.startup_channel import StartupChannel
from muster.app.system import system_desk
from muster.app.webhooks import Webhooks
from muster.control.batches.background import Background
from muster.control.files import FileService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.gateway_load import GatewayLoad
from muster.control.fleet.pools import PoolNodes
from muster.control.ingest import Ingests
from muster.control.jobs.engine_jobs import EngineJobs
from muster.control.jobs.queues import QueueService
from muster.control.jobs.schedules import ScheduleService
from muster.control.jobs.service import JobService, PayloadCheck
from muster.control.jobs.tasks import TaskDesk
from muster.control.leader import Leader
from muster.control.machines.first_machine import FirstMachine
from muster.control.sweep import Sweep
from muster.control.system import SystemDesk
from muster.errors import ShuttingDown
from muster.events.startup import CHANNEL
from muster.gateway.figures.decisions import RequestView
from muster.gateway.gateway import Gateway
from muster.links.memory import MemoryLink
from muster.ports import BrokerProbe, JobKind, Lifecycle, NodeLink
from muster.settings import Settings
from muster.stores.embedded import DataDirLock, EmbeddedValkey
from muster.stores.valkey import ValkeyStore
from muster.wire.hives import LINK as HIVE_LINK
from muster.wire.pools import LINK as V2_LINK

log = structlog.get_logger()


WEB_DIR = Path(muster.__file__).parent / "web"


@dataclass(frozen=True, kw_only=True)
class _Work(Work):
    """What machines are given to do."""

    schedules: ScheduleService
    files: FileService
    batches: Batches
    webhooks: Webhooks
    engine_jobs: EngineJobs


class ControlPlane(Groundwork):
    """A Lifecycle; once started, `urls` say where it listens and `link` serves an agent in this process."""

    def __init__(
        self,
        settings: Settings,
        job_kinds: Sequence[JobKind],
        progress: Progress,
        broken_connectors: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(settings, job_kinds)
        self._broken_connectors = broken_connectors or {}
        self._progress = progress
        self._workers: GatewayWorkers | None = None
        self._embedded: EmbeddedValkey | None = None
        self.link: MemoryLink | None = None
        self.files: FileService | None = None

    async def _start(self) -> None:
        settings = self._settings
        base = await self._base()
        work = await self._work(base)
        fleet, leader, jobs, commands = base.fleet, base.leader, work.jobs, work.commands
        announce = StartupChannel(base.store.bus.announce).tell
        logs = PlaneLogs(settings, fleet, base.peers, base.store.bus, self._clock, self._rng, self._plane_id)
        ingest = Ingests(fleet, commands, base.recorder, self._clock, logs.desk.take, announce)
        access = self._access(base.store)
        metering = self._metering(base, work, access)
        cloud, models = self._cloud(base, work.load), self._models(base, work)
        self._gateway = gateway = self._open_gateway(base, work, access, cloud, models, logs, metering)
        scenery = Scenery(fleet, jobs, self._clock, lambda: figures_of(gateway))
        hub = open_hub(base.store, fleet, scenery, work.engine_jobs, self._clock, settings)
        telemetry = telemetry_parts(fleet, ingest(HIVE_LINK), self._clock, self._rng, settings, self._older_interval_s)
        sweep = self._sweep(base, work)
        tasks = TaskDesk(jobs, fleet, waiting_max=settings.task_waiting_max)
        plane = Plane(
            fleet=fleet,
            ingest=ingest("http"),
            jobs=jobs,
            queues=QueueService(base.store.jobs, jobs, self._clock),
            schedules=work.schedules,
            commands=commands,
            events=base.store.log,
            hub=hub,
            scenery=scenery,
            clock=self._clock,
            metrics=lambda: metrics_of(*measured, self._workers),
            web_dir=WEB_DIR,
            access=access,
            request_bytes_max=settings.request_bytes_max,
            tasks=tasks,
            task_streams=TaskStreams(jobs, hub, tasks.ended),
            decide=gateway.decide,
            gateway=gateway.view,
            request=self._explain,
            webhooks=work.webhooks.desk,
            batches=work.batches.desk,
            models=models,
            telemetry=telemetry,
            pool_nodes=self._pool_nodes(fleet, ingest(V2_LINK)),
            fleet_api=bool(settings.fleet_api_url),
            machine=FirstMachine(cloud.service) if cloud else None,
            files=work.files,
            job_kinds=self._job_kinds,
            broken_connectors=self._broken_connectors,
            tracer=self._tracer,
            metering=metering,
            logs=logs.desk,
            system=self._system(base, lambda: broker.probe),
            note=logs.note_request,
        )
        broker = Broker(settings, fleet, commands, base.recorder, ingest("amqp"))
        measured = (fleet, gateway, metering, base.recorder, sweep, ingest, base.peers, leader, broker, cloud)
        logs.reach_nodes_by(commands, broker)
        front, grpc = await self._doors(plane, gateway, ingest("grpc"))
        # Who has streams and waits stops before the front, and so ends what would hold it up.
        await self._start_each(
            *(base.recorder, base.peers, leader, access, metering, logs.requests, logs.gateway, work.images, front),
            *(logs.desk, grpc, sweep, work.files, work.webhooks, work.batches, jobs, work.engine_jobs, commands),
            *(models, hub, telemetry.stream, broker),
        )
        await self._start_optional(cloud, fleet, plane.pool_nodes, jobs, leader)
        await self._announce(grpc, MemoryLink(ingest("memory"), jobs))

    def _system(self, base: Base, broker: Callable[[], BrokerProbe | None]) -> SystemDesk:
        store_at = (self._store_at, not self._settings.valkey_url)
        return system_desk(
            base.fleet,
            base.store,
            self._clock,
            base.peers,
            store_at=store_at,
            broker=broker,
            gateways=lambda: self._workers.reports() if self._workers else (),
        )

    async def _doors(self, plane: Plane, gateway: Gateway, link: NodeLink) -> tuple[Draining, GrpcPort]:
        settings = self._settings
        certificate = await self._certificate()
        tls = certificate.context if certificate else None
        self._front = open_front(settings, gateway, build_app(plane), tls)
        if others := settings.gateway_workers - 1:
            drain_s = settings.stop_timeout_s
            self._workers = GatewayWorkers(others, gateway, plane.models.uses, self._place, stop_timeout_s=drain_s)
        grpc = GrpcPort(settings, certificate, plane.fleet, plane.access, link, plane.jobs, self._clock)
        return Draining(self._front, settings.stop_timeout_s, beside=self._workers), grpc

    def _place(self) -> Place:
        """Tell a gateway process where it belongs."""
        front = self._front
        if front is None:
            raise ShuttingDown("gateway processes are started when the front listens")
        return Place(
            environment=gateway_environment(self._settings, front.addresses, self._url_of_store),
            first=front.private_address,
            plane_id=self._plane_id,
        )

    async def _explain(self, request_id: str) -> RequestView | None:
        found = self._gateway.explain(request_id) if self._gateway else None
        return found if found is not None or self._workers is None else await self._workers.explain(request_id)

    async def _work(self, base: Base) -> _Work:
        fleet, store = base.fleet, base.store
        load = self._load(base)
        background = Background(fleet, fleet.nodes, load.in_flight, load.first_waiting)
        webhooks = Webhooks(self._settings, store, self._clock, self._rng, leads=lambda: base.leader.leads)
        jobs = self._jobs(store, webhooks.desk.addresses, background.may_begin)
        engine_jobs = EngineJobs(fleet.candidates_at, store.jobs)
        jobs.watch_attempts(engine_jobs)
        load.count_jobs(engine_jobs)
        self.files = files = self._files(jobs)
        return _Work(
            jobs=jobs,
            schedules=ScheduleService(store.schedules, jobs, self._clock),
            commands=await self._commands(store, fleet, base.recorder, jobs),
            files=files,
            batches=self._batches(store, jobs, files, load, background, base.leader),
            webhooks=webhooks,
            load=load,
            images=self._images(jobs),
            engine_jobs=engine_jobs,
        )

    async def _start_optional(
        self, cloud: Cloud | None, fleet: Fleet, pool_nodes: PoolNodes | None, jobs: JobService, leader: Leader
    ) -> None:
        if cloud is not None:
            await self._stack.start(cloud)
        if pool_nodes is not None:
            await self._stack.start(self._pool_workers(fleet, pool_nodes, jobs, leader))

    def _pool_workers(self, fleet: Fleet, nodes: PoolNodes, jobs: JobService, leader: Leader) -> Lifecycle:
        from muster.app.pool_workers import PoolWorkers  # noqa: PLC0415 - of the agent's code: few have such pools

        workers = PoolWorkers(fleet, nodes, jobs, self.files, self._clock, self._rng, leads=lambda: leader.leads)
        jobs.on_stop(workers.stop_job)
        return workers

    async def _announce(self, grpc: GrpcPort, link: MemoryLink) -> None:
        self.link = link
        await self._stack.start(self._state_file(grpc))
        self._tell_what_is_open()

    def _state_file(self, grpc: GrpcPort) -> StateFile:
        settings = self._settings
        return StateFile(
            settings.data_path,
            lambda: self.urls,
            lambda: grpc.url,
            lambda: (self._store_at, self._store_pid),
            settings.event_log_path,
        )

    def _tell_what_is_open(self) -> None:
        """Say it in the words that people look for in a log."""
        fleet_api = self.urls[0] if self._settings.fleet_api_url else "off, only this machine is served"
        for told in (
            f"Redis connected: {self._store_at}",
            f"HTTP server started on {', '.join(self.urls)}",
            "WebSocket endpoints active: /ws/monitor/{id}, /ws/client/{id}",
            f"Machine event subscription active: {CHANNEL}",
            f"Fleet API: {fleet_api}",
        ):
            log.info(told)

    @property
    def _store_pid(self) -> int | None:
        return self._embedded.pid if self._embedded is not None else None

    async def _store_url(self) -> str:
        make_data_dir(self._settings.data_path)
        await self._stack.start(DataDirLock(self._settings.data_path))
        if self._settings.valkey_url:
            return self._settings.valkey_url
        self._progress("starting the embedded Valkey", None)
        self._embedded = embedded = EmbeddedValkey(self._settings.data_path)
        await self._stack.start(embedded)
        return embedded.url

    @property
    def _payload_checks(self) -> dict[str, PayloadCheck]:
        return {kind.name: kind.check for kind in self._job_kinds}

    def _files(self, jobs: JobService) -> FileService:
        return FileService(
            open_file_store(self._settings),
            jobs,
            self._clock,
            self._rng,
            file_bytes_max=self._settings.file_bytes_max,
            files_bytes_max=self._settings.files_bytes_max,
            retention_s=self._settings.job_retention_s,
        )

    def _batches(
        self,
        store: ValkeyStore,
        jobs: JobService,
        files: FileService,
        load: GatewayLoad,
        background: Background,
        leader: Leader,
    ) -> Batches:
        return Batches(
            self._settings,
            store,
            jobs,
            files,
            self._clock,
            self._rng,
            load=load,
            background=background,
            checks=self._payload_checks,
            leads=lambda: leader.leads,
        )

    def _sweep(self, base: Base, work: _Work) -> Sweep:
        settings = self._settings
        return Sweep(
            base.fleet,
            base.store.jobs,
            base.store.jobs,
            self._clock,
            self._rng,
            every_s=settings.job_sweep_s,
            retry_policy=self._retry_policy,
            retention_s=settings.job_retention_s,
            ended_max=settings.jobs_ended_max,
            patience_s=settings.job_lease_s,
            also=(work.commands.tick, work.schedules.tick),
            leads=lambda: base.leader.leads,
            stop_running=work.jobs.stop_running,
        )

    def _pool_nodes(self, fleet: Fleet, link: NodeLink) -> PoolNodes | None:
        if not self._settings.cloud_profile:
            return None
        return PoolNodes(fleet, link, self._clock, self._rng, interval_s=self._older_interval_s)

    @property
    def _older_interval_s(self) -> float:
        """How often nodes are to report that do not say it themselves."""
        return self._settings.node_timeout_s / self._settings.late_intervals
