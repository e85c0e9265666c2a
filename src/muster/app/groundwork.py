"""What every process of a control plane stands on: the store, the register, tokens, commands, and the gateway.

No web framework is known here: a process that has the gateway alone needs none, and takes a third of the memory for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from muster.access.masking import mask
from muster.app.certificates import CertificateWatch
from muster.app.cloud import Cloud, open_cloud
from muster.app.door import Heard, open_gateway
from muster.app.files import open_file_store
from muster.app.plane_logs import PlaneLogs
from muster.app.process import url_of
from muster.app.stack import Stack
from muster.app.system import about_us
from muster.app.tracing import OtelTracer, open_tracer
from muster.commands.book import CommandBook
from muster.control.access import Access
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.gateway_load import GatewayLoad
from muster.control.fleet.peers import Peers
from muster.control.images.desk import ImageDesk
from muster.control.images.models import ImageModels
from muster.control.jobs.service import JobService, JobStores
from muster.control.jobs.stopper import Stopper
from muster.control.leader import Leader
from muster.control.metering import Metering
from muster.control.model_keeper import NodeModels
from muster.control.models.loader import ModelLoader
from muster.control.models.uses import Uses
from muster.control.recorder import Recorder
from muster.control.timekeeper import Timekeeper
from muster.control.webhooks.of_jobs import JobAddresses
from muster.domain.job import ClaimedJob
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.ids import JobId, WorkerId, new_id
from muster.jobs.retry import RetryPolicy
from muster.ports import JobKind, Lifecycle
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.settings import Settings
from muster.stores.valkey import ValkeyStore
from muster.stores.valkey.address import parse_address
from muster.system import SystemClock, system_rng
from muster.tls import Certificate

log = structlog.get_logger()

_STOP_MARGIN_S = 5.0


@dataclass(frozen=True)
class Base:
    """What all else stands on."""

    store: ValkeyStore
    recorder: Recorder
    fleet: Fleet
    peers: Peers
    leader: Leader


@dataclass(frozen=True, kw_only=True)
class Work:
    """What machines are given to do, as far as a gateway has to know."""

    jobs: JobService
    commands: CommandService
    load: GatewayLoad
    images: ImageDesk


class Groundwork(ABC):
    """A Lifecycle; once started, `urls` say where it listens."""

    def __init__(self, settings: Settings, job_kinds: Sequence[JobKind] = (), gateway_of: str = "") -> None:
        self._settings = settings
        self._gateway_of = gateway_of
        self._job_kinds = job_kinds
        self._clock = Timekeeper(SystemClock())
        self._rng = system_rng()
        self._plane_id = new_id("plane", self._clock.now_ms(), self._rng)
        self._stack = Stack(settings.stop_timeout_s + _STOP_MARGIN_S)
        self._front: Front | None = None
        self._gateway: Gateway | None = None
        self._tracer: OtelTracer | None = None
        self._url_of_store = ""
        self._store_at = ""  # without its password

    @abstractmethod
    async def _start(self) -> None:
        """Start all that this process has."""

    @abstractmethod
    async def _store_url(self) -> str:
        """Return where the store is, once it is there."""

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

    async def _base(self) -> Base:
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
        return Base(store, recorder, fleet, peers, leader)

    def _models(self, base: Base, work: Work) -> ModelLoader:
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

    def _open_gateway(
        self,
        base: Base,
        work: Work,
        access: Access,
        cloud: Cloud | None,
        models: ModelLoader,
        logs: PlaneLogs,
        metering: Metering,
        *heard: Heard,
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
            images=work.images,
            clock=self._clock,
            rng=self._rng,
            tracer=self._tracer,
        )
        work.load.join(gateway.side)
        work.load.share(access)
        return gateway

    async def _open_tracer(self) -> OtelTracer | None:
        tracer = open_tracer(self._settings, "control-plane")
        if tracer is not None:
            await self._stack.start(tracer)
        return tracer

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
        self,
        store: ValkeyStore,
        addresses: JobAddresses | None = None,
        may_begin: Callable[[WorkerId, ClaimedJob], bool] = lambda _, __: True,
    ) -> JobService:
        return JobService(
            JobStores(queue=store.jobs, index=store.jobs, upkeep=store.jobs, lines=store.jobs),
            store.bus,
            self._clock,
            self._rng,
            lease_s=self._settings.job_lease_s,
            retry_policy=self._retry_policy,
            payload_bytes_max=self._settings.job_payload_bytes_max,
            payload_checks={kind.name: kind.check for kind in self._job_kinds},
            addresses=addresses,
            result_bytes_max=self._settings.job_result_bytes_max,
            may_begin=may_begin,
            tracer=self._tracer,
        )

    def _images(self, jobs: JobService) -> ImageDesk:
        settings = self._settings
        return ImageDesk(
            ImageModels(settings.image_models_path),
            jobs,
            partial(open_file_store, settings),
            self._clock,
            self._rng,
            waiting_max=settings.gateway_waiting_max,
            wait_s=settings.gateway_wait_s,
            timeout_s=settings.image_timeout_s,
        )

    @property
    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(base_s=self._settings.job_retry_base_s, max_s=self._settings.job_retry_max_s)

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

    def _cloud(self, base: Base, load: GatewayLoad) -> Cloud | None:
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

    def _access(self, store: ValkeyStore) -> Access:
        return Access(
            store.tokens,
            store.bus,
            self._clock,
            self._rng,
            bootstrap=self._settings.token,
            requests_per_s_max=self._settings.requests_per_s_max,
        )

    def _metering(self, base: Base, work: Work, access: Access) -> Metering:
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

    def _load(self, base: Base) -> GatewayLoad:
        return GatewayLoad(base.store.bus, self._clock, self._plane_id, lambda: base.peers.others, base.peers.siblings)
