"""One heartbeat: everything about this node as it is now."""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from muster.agent.board import Entry, ServiceBoard
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.crew import Crew
from muster.domain.artifact import NodeArtifacts
from muster.domain.node import Health, NodeFacts, Phase
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ports import HostProbe
from muster.wire import Heartbeat
from muster.wire.hives import HiveInfo, HiveWorker, operational_status, workers_told

_FAILING = {ServiceStatus.FAILED: "failed", ServiceStatus.UNHEALTHY: "does not answer"}
_HIVE_PATIENCE_S = 0.3  # a queen is told every second, whether the GPUs answer or not
_IDLE_HANDS = {WorkerStatus.STOPPED, WorkerStatus.ERROR}
Mark = Callable[[tuple[Service, ...]], tuple[Service, ...]]


class NodeState(Struct):
    """What changes in the life of the agent itself."""

    facts: NodeFacts
    phase: Phase = Phase.STARTING
    problems: dict[str, str] = {}  # by startup step


class Judgement(Struct, frozen=True):
    status: Health
    reason: str | None = None


class Sampler:
    def __init__(
        self,
        state: NodeState,
        boot_id: str,
        interval_s: float,
        host: HostProbe,
        gpus: Gpus,
        board: ServiceBoard,
        crew: Crew,
        mark: Mark = lambda services: services,
    ) -> None:
        """`mark` adds to what services say of themselves."""
        self._state = state
        self._boot_id = boot_id
        self._interval_s = interval_s
        self._host = host
        self._gpus = gpus
        self._board = board
        self._crew = crew
        self._mark = mark
        self._seq = 0
        self._judged = Judgement(Health.HEALTHY)

    async def sample(
        self,
        artifacts: NodeArtifacts = NodeArtifacts(),  # noqa: B008 - it cannot be changed
        *,
        draining: bool = False,
        yielding_to: str | None = None,
    ) -> Heartbeat:
        """Tell what is. A node that is yielded to its owner is well, and its services take nothing new."""
        reading = await self._gpus.read(self._interval_s / 2)  # else a driver that hangs would make the node late
        self._crew.hold_gpus(reading.out_of_service)
        processes = await self._board.processes()
        workers = tuple(self._crew.records())
        judgement = self._judged = self.judge(reading.problem, workers)
        services = self._mark(self._board.advertised())
        if yielding_to is not None:
            services = tuple(replace(service, draining=True) for service in services)
            judgement = Judgement(judgement.status, judgement.reason or f"yielding to {yielding_to}")
        self._seq += 1
        return Heartbeat(
            facts=self._state.facts,
            boot_id=self._boot_id,
            seq=self._seq,
            heartbeat_interval_s=self._interval_s,
            status=judgement.status,
            reason=judgement.reason,
            phase=self._state.phase,
            resources=self._host.read(),
            gpus=reading.gpus,
            workers=workers,
            services=services,
            processes=processes,
            draining=draining,
            artifacts=artifacts,
        )

    def hive(self) -> HiveInfo:
        """Say of the node what a queen is told, by the judgement of the last heartbeat."""
        facts = self._state.facts
        busy = any(worker.status is WorkerStatus.BUSY for worker in self._crew.records())
        return HiveInfo(
            id=facts.node_id,
            hostname=facts.address or facts.hostname,
            operational_status=operational_status(self._state.phase, busy=busy),
            health_status=self._judged.status.value,
            version=facts.version,
        )

    async def hive_workers(self) -> tuple[HiveWorker, ...]:
        reading = await self._gpus.read(_HIVE_PATIENCE_S)
        return workers_told(self._board.services(), await self._board.processes(), reading.gpus)

    def judge(self, gpu_problem: str | None, workers: Sequence[Worker]) -> Judgement:
        if self._state.phase is Phase.READY and all(worker.status in _IDLE_HANDS for worker in workers):
            return Judgement(Health.UNHEALTHY, f"no worker runs: {self._crew.refusal() or 'none was started'}")
        if self._state.phase is Phase.ERROR:
            told = "; ".join(f"{step}: {problem}" for step, problem in self._state.problems.items())
            return Judgement(Health.UNHEALTHY, f"it did not come up: {told}")
        complaints = [f"{step}: {problem}" for step, problem in self._state.problems.items()]
        complaints += filter(None, map(_complaint, self._board.entries()))
        complaints += [gpu_problem] if gpu_problem else []
        if complaints:
            return Judgement(Health.DEGRADED, "; ".join(complaints))
        return Judgement(Health.HEALTHY)


def _complaint(entry: Entry) -> str | None:
    service = entry.service
    if not entry.expected:
        return None
    if service.status in _FAILING:
        return f"service {service.name} {_FAILING[service.status]}: {service.error or 'for an unknown reason'}"
    if service.status is ServiceStatus.STARTING and service.restarts:
        return f"service {service.name} is being restarted: {service.error or 'for an unknown reason'}"
    return None
