"""The agent: one node of the fleet, from coming up to going away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import asdict, replace

from muster.agent.artifacts.actions import ArtifactActions
from muster.agent.artifacts.keeper import ArtifactMeans, FetchModel, Keeper
from muster.agent.board import ServiceBoard
from muster.agent.commands import Action, CommandDesk
from muster.agent.config import AgentConfig, BasicMachine
from muster.agent.gpus.gpus import Gpus, SimulatedGpus
from muster.agent.gpus.turns import GpuTurns
from muster.agent.identity import describe, local_address
from muster.agent.jobs.cache import clean
from muster.agent.jobs.crew import Crew
from muster.agent.outbox import Outbox
from muster.agent.owner.rules import OwnerRules
from muster.agent.owner.yielding import Hands, OwnerFirst
from muster.agent.profiles import basic_machine
from muster.agent.programs import AllowedPrograms
from muster.agent.report.heartbeat import Pulse
from muster.agent.report.hive import HiveReport, Send
from muster.agent.report.sampler import NodeState, Sampler
from muster.agent.services.actions import ServiceActions
from muster.agent.services.attach import Attachments, Discovery, Identify
from muster.agent.services.cgroups import find_cgroups
from muster.agent.services.launch import HealthCheck, Provisions
from muster.agent.services.residency import Residency
from muster.agent.services.supervisor import Supervisor
from muster.agent.startup import InOrder, StartupFailed, Step, run_steps
from muster.agent.surroundings import Surroundings
from muster.clock import Clock, Rng
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, Progress
from muster.domain.node import Phase
from muster.domain.service import Service
from muster.domain.trace import Tracer
from muster.errors import MusterError, UpstreamFailed
from muster.ids import new_id
from muster.logs.clerk import LogClerk
from muster.logs.shelf import LogShelf
from muster.ports import Connector, FileLink, GpuProbe, HostProbe, JobLink, Lifecycle, NodeLink, ReportProgress
from muster.wire import Deregistration, Heartbeat, HeartbeatReply, Registration

log = structlog.get_logger()

_GOODBYE_S = 5.0


class Devices(Struct, frozen=True, kw_only=True):
    """What reads this machine; `simulated_gpus` stands in where GPUs are asked for and none is found."""

    gpus: GpuProbe
    simulated_gpus: SimulatedGpus
    host: HostProbe


class Backends(Struct, frozen=True, kw_only=True):
    """How services are driven, found, checked and given their models: those of `fetch_model` lie here already."""

    connectors: Mapping[str, Connector]
    identify: Identify
    usual_ports: Mapping[str, int]
    check_health: HealthCheck
    fetch_model: FetchModel
    artifacts: ArtifactMeans | None = None  # None: nothing is fetched
    broken_connectors: Mapping[str, str] = {}  # why, by name
    files: FileLink | None = None  # None: jobs can neither keep files nor read any
    tracer: Tracer | None = None
    tell_queen: Send | None = None  # None: nobody listens to hives
    work_dir: Path | None = None  # what attempts keep on the way


class Agent:
    """A Lifecycle. Once `start` returns the node is ready or has failed, control plane or not."""

    def __init__(
        self,
        config: AgentConfig,
        nodes: NodeLink,
        jobs: JobLink,
        devices: Devices,
        backends: Backends,
        clock: Clock,
        rng: Rng,
        data_dir: Path,
    ) -> None:
        self._config = config
        self._nodes = nodes
        self._backends = backends
        self._clock = clock
        self._data_dir = data_dir
        self._boot_id = new_id("boot", clock.now_ms(), rng)
        address = config.address or local_address(config.control_plane)
        self._state = NodeState(describe(config, address, ()))
        self._outbox = Outbox(config.node_id, clock, self.hurry)
        self._board = ServiceBoard()
        self._around = Surroundings(
            address=address,
            connectors=backends.connectors,
            board=self._board,
            outbox=self._outbox,
            clock=clock,
            rng=rng,
            look_every_s=config.look_every_s,
            files=backends.files,
            tracer=backends.tracer,
            logs_dir=data_dir / "logs",
        )
        self._gpus = Gpus(
            devices.gpus,
            devices.simulated_gpus,
            None if config.num_gpus == "auto" else config.num_gpus,
            clock,
            self._outbox.add,
            self._board.services,
        )
        shared = config.model_policy.share_gpu if config.model_policy else ()
        self._turns = GpuTurns(shared, self._board.services, clock, self._outbox)
        self._crew = self._crew_of(jobs, devices.host)
        self._owner: OwnerFirst | None = None
        self._profile = self._startup_of(config.profile) if config.profile else None
        self._told_phase: Phase | None = None
        self._keeper = Keeper(config, backends.artifacts, backends.fetch_model, nodes, self._around, self._start_late)
        self._supervisor: Supervisor | None = None
        self._logs = LogClerk(LogShelf(data_dir / "logs", clock), nodes.tell_logs, clock, sender=config.node_id)
        self._services = ServiceActions(
            self._board, backends.connectors, backends.fetch_model, lambda: self._supervisor
        )
        self._residency = self._models_of(config)
        self._owner = self._owner_of(config.owner) if config.owner else None
        self._desk = self._command_desk(rng)
        self._sampler = self._sampler_of(devices.host)
        self._pulse = self._pulse_over(nodes)
        self._attachments = Attachments(config.attach, self._around)
        self._running: list[Lifecycle] = []  # in the order of their start
        self._startup: asyncio.Task[None] | None = None
        self._stop_asked = asyncio.Event()
        self._stop_reason = "stopped"
        self._superseded = self._draining = False
        self._board.on_change(self.hurry)

    @property
    def services(self) -> list[Service]:
        return list(self._board.services())

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._startup is not None:
            return
        self._startup = asyncio.create_task(self._come_up(), name="startup")
        try:
            await asyncio.wait([self._startup])
        except asyncio.CancelledError:
            self._startup.cancel()
            raise
        if not self._startup.cancelled():
            self._startup.result()

    async def stop(self) -> None:
        """Finish or give back the jobs, stop the services, say goodbye."""
        if self._startup is None or self._state.phase in {Phase.STOPPING, Phase.OFFLINE}:
            return
        self._startup.cancel()
        await asyncio.gather(self._startup, return_exceptions=True)
        self._outbox.add("node_stopping", reason=self._stop_reason)
        self._enter(Phase.STOPPING)
        await _carried_through(self._desk.stop)  # first: nothing is to be begun any more
        for lifecycle in reversed(self._running):
            await _carried_through(lifecycle.stop)
        await self._pulse.stop()
        await self._say_goodbye()
        self._state.phase = Phase.OFFLINE

    async def run_until_stopped(self) -> None:
        """Start, wait until somebody asks to stop (`request_stop`, or the command `shutdown`), stop."""
        try:
            await self.start()
            await self.stop_requested()
        finally:
            await self.stop()

    async def stop_requested(self) -> None:
        """Wait until `request_stop`, or the command `shutdown`."""
        await self._stop_asked.wait()

    def request_stop(self, reason: str = "stopped") -> None:
        self._stop_reason = reason
        self._stop_asked.set()

    def _crew_changed(self) -> None:
        if self._owner is not None:
            self._owner.work_changed()
        if self._profile is not None:
            self._profile.show_workers()
        self.hurry()

    def hurry(self) -> None:
        """Report soon: there is news, or a way to the control plane again."""
        self._pulse.hurry()

    async def _come_up(self) -> None:
        started_s = self._clock.monotonic_s()
        try:
            self._state.problems = await run_steps(self._steps(), self._outbox, self._clock, self._come_to)
        except StartupFailed as error:
            self._state.problems = {error.step: error.message}
            self._outbox.add("startup_failed", step=error.step, reason=error.message)
            self._enter(Phase.ERROR)
            return
        self._come_to(Phase.READY)
        took_s = round(self._clock.monotonic_s() - started_s, 2)
        self._outbox.add("startup_complete", worker_count=len(self._crew.records()), took_s=took_s)

    def _steps(self) -> list[Step]:
        if self._profile is not None:
            return self._profile.steps()
        broken = [Step(name="load_connectors", run=self._tell_broken)] if self._backends.broken_connectors else []
        return [
            Step(name="identify", run=self._identify),
            Step(name="read_devices", run=self._read_devices),
            *broken,
            Step(name="join_fleet", run=self._join_fleet),
            Step(name="fetch_models", run=self._fetch_models),
            Step(name="start_services", run=self._start_services),
            Step(name="start_workers", run=self._start_workers, required=True),
            Step(name="attach_services", run=self._attach_services, phase=Phase.CONFIGURING),
        ]

    def _crew_of(self, jobs: JobLink, host: HostProbe) -> Crew:
        return Crew(
            self._config,
            jobs,
            self._gpus,
            host,
            self._state.facts.cpu_cores or 0,
            self._around,
            self._crew_changed,
            self._take_turn,
        )

    def _sampler_of(self, host: HostProbe) -> Sampler:
        return Sampler(
            self._state,
            self._boot_id,
            self._config.heartbeat_interval_s,
            host,
            self._gpus,
            self._board,
            self._crew,
            self._residency.marked,
        )

    def _models_of(self, config: AgentConfig) -> Residency:
        return Residency(
            config.model_policy,
            self._board,
            self._around.connectors,
            self._services,
            lambda: self._supervisor,
            self._turns,
            self._outbox,
            self._clock,
            self._data_dir,
            look_every_s=config.look_every_s,
        )

    def _owner_of(self, rules: OwnerRules) -> OwnerFirst:
        async def read_gpus() -> tuple[Gpu, ...]:
            return (await self._gpus.read(rules.look_every_s)).gpus

        hands = Hands(
            hold=lambda held: self._crew.hold("yielding", held=held),
            running=lambda: sum(len(worker.current_jobs) for worker in self._crew.records()),
            give_back=self._crew.give_back,
            leave=self._residency.pause,
            come_back=self._residency.resume,
        )
        return OwnerFirst(rules, read_gpus, hands, self._outbox, self._clock)

    @asynccontextmanager
    async def _take_turn(
        self, service: Service | None, job: ClaimedJob, report: ReportProgress
    ) -> AsyncIterator[Service | None]:
        """Have the GPU for a job where it is shared, and its service started where that rests."""
        if service is None:
            yield None
            return

        def say(why: str) -> None:
            report(Progress(message=why))

        async with self._turns.take(service, f"runs job {job.spec.job_id}", say):
            yield await self._residency.started(service, say)

    def _pulse_over(self, link: NodeLink) -> Pulse:
        return Pulse(
            self._config.node_id,
            link,
            self._registration,
            self._sample,
            self._outbox,
            self._hear,
            self._clock,
            self._around.rng,
            interval_s=self._config.heartbeat_interval_s,
        )

    def _startup_of(self, profile: BasicMachine) -> basic_machine.Startup:
        own = basic_machine.OwnSteps(
            identify=self._identify,
            read_devices=self._read_devices,
            join_fleet=self._join_fleet,
            fetch_models=self._fetch_models,
            start_services=self._start_services,
            attach_services=self._attach_services,
            start_workers=self._start_workers,
        )
        hands = basic_machine.Hands(
            outbox=self._outbox,
            board=self._board,
            gpus=lambda: self._gpus.inventory,
            workers=self._crew.records,
            keep=self._run,
            data_dir=self._data_dir,
        )
        return basic_machine.Startup(profile, own, hands)

    def _come_to(self, phase: Phase) -> None:
        if phase is not self._told_phase:
            self._outbox.add("machine_startup", phase=phase.value, boot_id=self._boot_id)
        self._told_phase = phase
        self._enter(phase)

    async def _run(self, lifecycle: Lifecycle) -> None:
        self._running.append(lifecycle)  # first: what was half started is to be stopped as well
        await lifecycle.start()

    async def _say_goodbye(self) -> None:
        message = Deregistration(node_id=self._config.node_id, boot_id=self._boot_id, reason=self._stop_reason)
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._pulse.beat_now()
                await self._nodes.deregister(message)
        except (MusterError, TimeoutError) as error:
            log.warning("not_deregistered", node_id=self._config.node_id, error=str(error))

    # --- the steps of coming up --------------------------------------------------------------------------------------

    async def _identify(self) -> dict[str, Any]:
        return {"boot_id": self._boot_id, "address": self._around.address}

    async def _read_devices(self) -> dict[str, Any]:
        await self._gpus.take_stock()
        inventory = self._gpus.inventory
        self._state.facts = describe(self._config, self._around.address, inventory)
        return {"gpus": [gpu.name for gpu in inventory], "simulated": sum(gpu.simulated for gpu in inventory)}

    async def _tell_broken(self) -> dict[str, Any]:
        """Make it a problem of the node, which works without them."""
        raise UpstreamFailed("; ".join(self._backends.broken_connectors.values()))

    async def _join_fleet(self) -> dict[str, Any]:
        await self._run(self._logs)
        await self._pulse.start()
        await self._desk.start()
        if (queen := self._backends.tell_queen) is not None:
            await self._run(self._report_to(queen))
        return {}

    async def _fetch_models(self) -> dict[str, Any]:
        self._keeper.needs.plan([gpu.index for gpu in self._gpus.inventory])
        await self._run(self._keeper)
        missing = await self._keeper.fetch_needed()
        if missing:
            raise UpstreamFailed("; ".join(f"{name}: {why}" for name, why in missing.items()))
        return {"models": dict(self._keeper.paths)}

    async def _start_services(self) -> dict[str, Any]:
        provisions = Provisions(
            data_dir=self._data_dir,
            models=self._keeper.paths,
            missing_models=self._keeper.missing,
            check_health=self._backends.check_health,
            gpu_names=self._gpus.cuda_names,
            cgroups=find_cgroups(self._config.cgroup_root),
            limits_required=self._config.limits_required,
            adopt_within_s=self._config.adopt_within_s,
        )
        planned = self._keeper.needs.instances
        # A profile's services are told in the order of their GPUs.
        in_order = InOrder(self._outbox, [each.name for each in planned] if self._profile else [])
        self._supervisor = Supervisor(planned, provisions, replace(self._around, outbox=in_order))
        await self._run(self._supervisor)
        return {"services": {service.name: service.status.value for service in self._board.services()}}

    async def _start_late(self, service: str) -> None:
        """Start a service that failed at first, for want of what has come since."""
        if self._supervisor is not None and self._supervisor.has(service):
            await self._supervisor.restart(service)

    async def _attach_services(self) -> dict[str, Any]:
        await self._run(self._attachments)
        await self._run(self._residency)
        if self._owner is not None:
            await self._run(self._owner)
        if self._config.discover:
            backends, config = self._backends, self._config
            every_s = config.discover_every_s
            await self._run(
                Discovery(
                    backends.identify,
                    backends.usual_ports,
                    config.ignored_ports,
                    self._attachments,
                    self._around,
                    every_s=every_s,
                )
            )
        return {"services": [service.name for service in self._board.services() if not service.managed]}

    async def _start_workers(self) -> dict[str, Any]:
        if self._backends.work_dir is not None:
            cleaned = asdict(await asyncio.to_thread(clean, self._backends.work_dir))
            log.info("Worker cache cleaned", **cleaned)  # in the words that people look for in a machine's log
            self._outbox.add("worker_cache_cleaned", **cleaned)
        await self._run(self._crew)
        return {"workers": [worker.worker_id for worker in self._crew.records()]}

    # --- talking to the control plane --------------------------------------------------------------------------------

    def _report_to(self, queen: Send) -> HiveReport:
        sampler, interval_s = self._sampler, self._config.queen_interval_s
        return HiveReport(
            sampler.hive, sampler.hive_workers, queen, self._outbox.add, self._clock, interval_s=interval_s
        )

    def _registration(self) -> Registration:
        return Registration(
            facts=self._state.facts,
            boot_id=self._boot_id,
            heartbeat_interval_s=self._config.heartbeat_interval_s,
            phase=self._state.phase,
        )

    async def _sample(self) -> Heartbeat:
        if not self._keeper.missing:
            self._state.problems.pop("fetch_models", None)  # what was missing has been fetched since
        self._state.facts = replace(self._state.facts, models=self._residency.policy)
        return await self._sampler.sample(
            await self._keeper.report(),
            draining=self._draining,
            yielding_to=None if self._owner is None else self._owner.to,
        )

    def _hear(self, reply: HeartbeatReply) -> None:
        if reply.superseded and not self._superseded:
            log.error("node_id_taken", node_id=self._config.node_id, next_step="give one of the two agents its own id")
        self._superseded = reply.superseded
        self._crew.hold("node id is taken", held=reply.superseded)
        self._desk.allow(allowed=not reply.superseded)
        self._drain(draining=reply.draining)

    def _enter(self, phase: Phase) -> None:
        self._state.phase = phase
        self.hurry()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _command_desk(self, rng: Rng) -> CommandDesk:
        return CommandDesk(
            self._config.node_id,
            self._boot_id,
            self._nodes,
            self._commands(),
            self._clock,
            rng,
            retry_s_max=self._config.heartbeat_interval_s,
            take_log_asks=self._logs.take,
        )

    def _commands(self) -> dict[str, Action]:
        services, models = self._services, self._residency
        artifacts = ArtifactActions(self._keeper, services)
        return {
            "status": self._status,
            "drain": self._hold_work,
            "resume": self._take_work,
            "shutdown": self._shut_down,
            "cancel_job": self._cancel_job,
            "restart_service": artifacts.restart,
            "stop_service": services.stop,
            "pull_model": artifacts.pull_model,
            "remove_model": artifacts.remove_model,
            "load_model": models.load,
            "unload_model": models.unload,
            "pin_model": models.pin,
            "unpin_model": models.unpin,
            "logs": services.logs,
            "exec": AllowedPrograms(self._config.commands, self._data_dir).run,
        }

    async def _status(self, _: dict[str, Any], __: ReportProgress) -> dict[str, Any]:
        heartbeat = await self._sample()
        return {
            "phase": heartbeat.phase.value,
            "status": heartbeat.status.value,
            "reason": heartbeat.reason,
            "draining": heartbeat.draining,
            "workers": {worker.worker_id: worker.status.value for worker in heartbeat.workers},
            "services": {service.name: service.status.value for service in heartbeat.services},
        }

    async def _hold_work(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        """Hold the workers now; that they stay held is the control plane's word, with every heartbeat's reply."""
        self._outbox.add("node_drained", reason=args.get("reason"))
        self._drain(draining=True)
        return {"draining": True, "jobs_running": sum(len(worker.current_jobs) for worker in self._crew.records())}

    async def _take_work(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        self._outbox.add("node_resumed", reason=args.get("reason"))
        self._drain(draining=False)
        return {"draining": False}

    def _drain(self, *, draining: bool) -> None:
        self._draining = draining
        self._crew.hold("draining", held=draining)

    async def _shut_down(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        reason = args.get("reason") or "shutdown by command"
        log.info("shutdown_ordered", node_id=self._config.node_id, reason=reason)
        self.request_stop(reason)
        return {"reason": reason}

    async def _cancel_job(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        job_id = args["job_id"]
        return {"job_id": job_id, "was_running": self._crew.drop_job(job_id)}


async def _carried_through(stop: Callable[[], Awaitable[None]]) -> None:
    """Stop one; a fault in it must not leave the others running."""
    try:
        await stop()
    except Exception:
        log.exception("stop_failed", what=repr(stop))
