"""The control plane put together: which adapter serves which port."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

import muster
from muster.access.masking import mask
from muster.api.asgi import build_app
from muster.api.plane import Plane
from muster.api.state import Scenery
from muster.api.task_stream import TaskStreams
from muster.app.batches import Batches
from muster.app.broker import Broker
from muster.app.certificates import CertificateWatch
from muster.app.cloud import Cloud, open_cloud
from muster.app.door import Draining, figures_of, open_front, open_gateway
from muster.app.files import open_file_store
from muster.app.gateway_workers import GatewayWorkers, Place
from muster.app.grpc_port import GrpcPort
from muster.app.live import open_hub, telemetry_parts
from muster.app.machine import gateway_environment
from muster.app.metrics import metrics_of
from muster.app.plane_logs import PlaneLogs
from muster.app.pool_workers import PoolWorkers
from muster.app.process import Progress, StateFile, make_data_dir, url_of
from muster.app.stack import Stack
from muster.app.startup_channel import StartupChannel
from muster.app.system import about_us, system_desk
from muster.app.tracing import OtelTracer, open_tracer
from muster.app.webhooks import Webhooks
from muster.commands.book import CommandBook
from muster.control.access import Access
from muster.control.batches.background import Background
from muster.control.commands import CommandService
from muster.control.files import FileService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.gateway_load import GatewayLoad
from muster.control.fleet.peers import Peers
from muster.control.fleet.pools import PoolNodes
from muster.control.ingest import Ingests
from muster.control.jobs.engine_jobs import EngineJobs
from muster.control.jobs.queues import QueueService
from muster.control.jobs.schedules import ScheduleService
from muster.control.jobs.service import JobService, JobStores, PayloadCheck
from muster.control.jobs.stopper import Stopper
from muster.control.jobs.tasks import TaskDesk
from muster.control.leader import Leader
from muster.control.machines.first_machine import FirstMachine
from muster.control.metering import Metering
from muster.control.model_keeper import NodeModels
from muster.control.models.loader import ModelLoader
from muster.control.models.uses import Uses
from muster.control.recorder import Recorder
from muster.control.sweep import Sweep
from muster.control.system import SystemDesk
from muster.control.timekeeper import Timekeeper
from muster.control.webhooks.of_jobs import JobAddresses
from muster.domain.job import ClaimedJob
from muster.errors import ShuttingDown
from muster.events.startup import CHANNEL
from muster.gateway.figures.decisions import RequestView
from muster.gateway.figures.usage import Finished
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.ids import JobId, WorkerId, new_id
from muster.jobs.retry import RetryPolicy
from muster.links.memory import MemoryLink
from muster.ports import BrokerProbe, JobKind, Lifecycle, NodeLink
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.settings import Settings
from muster.stores.embedded import DataDirLock, EmbeddedValkey
from muster.stores.valkey import ValkeyStore
from muster.stores.valkey.address import parse_address
from muster.system import SystemClock, system_rng
from muster.tls import Certificate
from muster.wire.hives import LINK as HIVE_LINK
from muster.wire.pools import LINK as V2_LINK

log = structlog.get_logger()


_STOP_MARGIN_S = 5.0
WEB_DIR = Path(muster.__file__).parent / "web"


@dataclass(frozen=True)
class _Base:
    """What all else stands on."""

    store: ValkeyStore
    recorder: Recorder
    fleet: Fleet
    peers: Peers
    leader: Leader


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What machines are given to do."""

    jobs: JobService
    schedules: ScheduleService
    commands: CommandService
    files: FileService
    batches: Batches
    webhooks: Webhooks
    load: GatewayLoad
    engine_jobs: EngineJobs


class ControlPlane:
    """A Lifecycle; once started, `urls` say where it listens and `link` serves an agent in this process."""

    def __init__(
        self,
        settings: Settings,
        job_kinds: Sequence[JobKind],
        progress: Progress,
        broken_connectors: Mapping[str, str] | None = None,
        gateway_of: str = "",
    ) -> None:
        self._settings = settings
        self._gateway_of = gateway_of
        self._job_kinds = job_kinds
        self._broken_connectors = broken_connectors or {}
        self._progress = progress
        self._clock = Timekeeper(SystemClock())
        self._rng = system_rng()
        self._plane_id = new_id("plane", self._clock.now_ms(), self._rng)
        self._stack = Stack(settings.stop_timeout_s + _STOP_MARGIN_S)
        self._front: Front | None = None
        self._workers: GatewayWorkers | None = None
        self._gateway: Gateway | None = None
        self._tracer: OtelTracer | None = None
        self._embedded: EmbeddedValkey | None = None
        self._url_of_store = ""
        self._store_at = ""  # without its password
        self.link: MemoryLink | None = None
        self.files: FileService | None = None

    @property
    def urls(self) -> list[str]:
        tls = bool(self._settings.tls_cert_file)
        return [url_of(address, tls=tls) for address in (self._front.addresses if self._front else ())]

    async def start(self) -> None:
        try:
            await self._start()
        except BaseException:
            await self._stack.stop()
            raise

    async def stop(self) -> None:
        await self._stack.stop()

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
            *(base.recorder, base.peers, leader, access, metering, logs.requests, logs.gateway, front, logs.desk, grpc),
            *(sweep, work.files, work.webhooks, work.batches, jobs, work.engine_jobs, commands, models, hub),
            *(telemetry.stream, broker),
        )
        await self._start_optional(cloud, fleet, plane.pool_nodes, jobs, leader)
        await self._announce(grpc, MemoryLink(ingest("memory"), jobs))

    def _system(self, base: _Base, broker: Callable[[], BrokerProbe | None]) -> SystemDesk:
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

    async def _base(self) -> _Base:
        self._tracer = await self._open_tracer()
        store = await self._open_store()
        recorder = Recorder(store.nodes, store.log)
        fleet = Fleet(self._book(), recorder, self._clock)
        fleet.load(await store.nodes.load())
        about = about_us(self._clock.now_ms(), self._gateway_of)
        peers = Peers(fleet, recorder, store.nodes, store.bus, self._clock, self._plane_id, about)
        leader = Leader(store.leases, self._clock, self._plane_id)
        self._clock.on_set(fleet.book.clock_set)
        self._clock.on_set(leader.doubt)
        return _Base(store, recorder, fleet, peers, leader)

    async def _work(self, base: _Base) -> _Work:
        fleet, store = base.fleet, base.store
        load = GatewayLoad(store.bus, self._clock, self._plane_id, beside=lambda: bool(base.peers.others))
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
            engine_jobs=engine_jobs,
        )

    def _models(self, base: _Base, work: _Work) -> ModelLoader:
        uses = Uses(lambda: self._gateway.in_use() if self._gateway else (), work.load.in_flight, self._clock)
        return ModelLoader(
            base.fleet,
            work.commands,
            uses,
            self._clock,
            timeout_s=self._settings.model_load_timeout_s,
            leads=lambda: base.leader.leads,
        )

    async def _start_each(self, *services: Lifecycle) -> None:
        for service in services:
            await self._stack.start(service)

    async def _start_optional(
        self, cloud: Cloud | None, fleet: Fleet, pool_nodes: PoolNodes | None, jobs: JobService, leader: Leader
    ) -> None:
        if cloud is not None:
            await self._stack.start(cloud)
        if pool_nodes is not None:
            await self._stack.start(self._pool_workers(fleet, pool_nodes, jobs, leader))

    def _pool_workers(self, fleet: Fleet, nodes: PoolNodes, jobs: JobService, leader: Leader) -> PoolWorkers:
        workers = PoolWorkers(fleet, nodes, jobs, self.files, self._clock, self._rng, leads=lambda: leader.leads)
        jobs.on_stop(workers.stop_job)
        return workers

    def _open_gateway(
        self,
        base: _Base,
        work: _Work,
        access: Access,
        cloud: Cloud | None,
        models: ModelLoader,
        logs: PlaneLogs,
        metering: Metering,
        *heard: Callable[[Finished], None],
    ) -> Gateway:
        gateway = open_gateway(
            self._settings,
            base.fleet,
            access,
            cloud,
            models,
            logs,
            metering,
            *heard,
            recorder=base.recorder,
            keeper=NodeModels(work.commands, base.fleet),
            streams=base.store.streams,
            clock=self._clock,
            rng=self._rng,
            tracer=self._tracer,
        )
        work.load.join(gateway.side)
        return gateway

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

    async def _open_tracer(self) -> OtelTracer | None:
        tracer = open_tracer(self._settings, "control-plane")
        if tracer is not None:
            await self._stack.start(tracer)
        return tracer

    async def _store_url(self) -> str:
        make_data_dir(self._settings.data_path)
        await self._stack.start(DataDirLock(self._settings.data_path))
        if self._settings.valkey_url:
            return self._settings.valkey_url
        self._progress("starting the embedded Valkey", None)
        self._embedded = embedded = EmbeddedValkey(self._settings.data_path)
        await self._stack.start(embedded)
        return embedded.url

    async def _open_store(self) -> ValkeyStore:
        url = self._url_of_store = await self._store_url()
        store = await ValkeyStore.open(
            url,
            result_bytes_max=self._settings.job_result_bytes_max,
            event_log_entries_max=self._settings.event_log_entries_max,
            commands_ended_max=self._settings.commands_ended_max,
        )
        log.info("store_opened", url=mask(url), embedded=not self._settings.valkey_url)
        self._stack.add(store.close)
        self._store_at = parse_address(url).shown
        return store

    def _jobs(
        self, store: ValkeyStore, addresses: JobAddresses, may_begin: Callable[[WorkerId, ClaimedJob], bool]
    ) -> JobService:
        return JobService(
            JobStores(queue=store.jobs, index=store.jobs, upkeep=store.jobs, lines=store.jobs),
            store.bus,
            self._clock,
            self._rng,
            lease_s=self._settings.job_lease_s,
            retry_policy=self._retry_policy,
            payload_bytes_max=self._settings.job_payload_bytes_max,
            payload_checks=self._payload_checks,
            addresses=addresses,
            result_bytes_max=self._settings.job_result_bytes_max,
            may_begin=may_begin,
            tracer=self._tracer,
        )

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

    async def _commands(self, store: ValkeyStore, fleet: Fleet, recorder: Recorder, jobs: JobService) -> CommandService:
        commands = CommandService(
            CommandBook(self._settings.commands_max, self._settings.commands_ended_max),
            store.commands,
            store.bus,
            fleet,
            recorder,
            self._clock,
            self._rng,
            {"cancel_job": lambda args: jobs.end(JobId(args["job_id"]))},
        )
        await commands.load()
        jobs.on_stop(Stopper(commands).stop)
        return commands

    def _cloud(self, base: _Base, load: GatewayLoad) -> Cloud | None:
        return open_cloud(
            self._settings,
            base.fleet,
            base.store.leases,
            base.store.bus,
            base.recorder,
            self._clock,
            plane_id=self._plane_id,
            busy_workers=load.in_flight,
            is_leader=lambda: base.leader.leads,
        )

    def _sweep(self, base: _Base, work: _Work) -> Sweep:
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

    @property
    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(base_s=self._settings.job_retry_base_s, max_s=self._settings.job_retry_max_s)

    def _access(self, store: ValkeyStore) -> Access:
        return Access(
            store.tokens,
            store.bus,
            self._clock,
            self._rng,
            bootstrap=self._settings.token,
            requests_per_s_max=self._settings.requests_per_s_max,
        )

    def _metering(self, base: _Base, work: _Work, access: Access) -> Metering:
        metering = Metering(
            base.store.usage,
            base.store.jobs,
            access,
            self._clock,
            plane_id=self._plane_id,
            retention_s=self._settings.usage_retention_s,
            leads=lambda: base.leader.leads,
        )
        work.jobs.on_done(metering.job_done)
        work.jobs.check_models_by(access.check_models)
        work.jobs.bound_priorities_by(access.priority_max)
        return metering

    async def _certificate(self) -> Certificate | None:
        settings = self._settings
        if not settings.tls_cert_file:
            return None
        certificate = Certificate(settings.tls_cert_file, settings.tls_key_file)
        await self._stack.start(CertificateWatch(certificate))
        return certificate

    def _book(self) -> NodeBook:
        settings = self._settings
        limits = Limits(
            late_intervals=settings.late_intervals,
            stale_after_s=settings.stale_after_s or None,
            dead_after_s=settings.dead_after_s or None,
        )
        return NodeBook(
            limits,
            forget_after_s=settings.forget_after_s,
            nodes_max=settings.nodes_max,
            suspicion_s=settings.self_suspicion_s,
            plane_id=self._plane_id,
        )

    def _pool_nodes(self, fleet: Fleet, link: NodeLink) -> PoolNodes | None:
        if not self._settings.cloud_profile:
            return None
        return PoolNodes(fleet, link, self._clock, self._rng, interval_s=self._older_interval_s)

    @property
    def _older_interval_s(self) -> float:
        """How often nodes are to report that do not say it themselves."""
        return self._settings.node_timeout_s / self._settings.late_intervals
