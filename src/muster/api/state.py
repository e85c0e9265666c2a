"""The monitor's picture of everything: what its snapshot holds and what live events are made of."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from muster import __version__
from muster.api.views import JobView, MachineView, WorkerView, job_view, machine_view, worker_views
from muster.clock import Clock
from muster.control.fleet import Fleet
from muster.control.job_service import JobService
from muster.domain.job import ACTIVE, JobStatus
from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus
from muster.ids import JobId, NodeId

_SHOWN_PER_STATE = 50


class GatewayFigures(Struct, frozen=True, kw_only=True):
    in_flight: int = 0
    requests_total: int = 0
    errors_total: int = 0


class SystemStats(Struct, frozen=True, kw_only=True):
    version: str
    started_at: int
    total_machines: int
    healthy_machines: int
    total_workers: int
    busy_workers: int
    total_gpus: int
    models: int
    jobs: dict[str, int]
    gateway: GatewayFigures


class JobLists(Struct, frozen=True, kw_only=True):
    """At most 50 each, without payloads and results; the counts in system_stats are whole."""

    pending: list[JobView]
    active: list[JobView]
    completed: list[JobView]
    failed: list[JobView]


class MonitorState(Struct, frozen=True, kw_only=True):
    machines: list[MachineView]
    workers: list[WorkerView]
    jobs: JobLists
    system_stats: SystemStats


class MachineState(Struct, frozen=True, kw_only=True):
    machine: MachineView
    workers: list[WorkerView]


class Scenery:
    """Implements what the hub shows."""

    def __init__(
        self, fleet: Fleet, jobs: JobService, clock: Clock, gateway_figures: Callable[[], GatewayFigures]
    ) -> None:
        self._fleet = fleet
        self._jobs = jobs
        self._clock = clock
        self._gateway_figures = gateway_figures
        self._started_at = clock.now_ms()

    def machine(self, node_id: NodeId) -> MachineState | None:
        node = self._fleet.book.get(node_id)
        if node is None:
            return None
        return MachineState(machine=self._machine_view(node), workers=worker_views(node))

    async def jobs(self, job_ids: Sequence[JobId]) -> list[JobView]:
        return [job_view(job, whole=False) for job in await self._jobs.get_many(job_ids)]

    async def job(self, job_id: JobId) -> JobView:
        return job_view(await self._jobs.get(job_id), whole=True)

    async def stats(self) -> SystemStats:
        nodes = self._fleet.nodes()
        workers = [worker for node in nodes for worker in worker_views(node)]
        counts = await self._jobs.counts()
        return SystemStats(
            version=__version__,
            started_at=self._started_at,
            total_machines=len(nodes),
            healthy_machines=sum(node.health is Health.HEALTHY for node in nodes),
            total_workers=len(workers),
            busy_workers=sum(worker.status is WorkerStatus.BUSY for worker in workers),
            total_gpus=sum(len(node.gpus) for node in nodes),
            models=len({name for candidate in self._fleet.candidates() for name in candidate.models}),
            jobs={status.value: counts.get(status, 0) for status in JobStatus},
            gateway=self._gateway_figures(),
        )

    async def snapshot(self, machines: frozenset[str] = frozenset()) -> MonitorState:
        return await self.state([node for node in self._fleet.nodes() if not machines or node.node_id in machines])

    async def state(self, nodes: Sequence[Node]) -> MonitorState:
        active = [job for status in sorted(ACTIVE) for job in await self._first(status)]
        failed = await self._first(JobStatus.FAILED) + await self._first(JobStatus.TIMEOUT)
        failed.sort(key=lambda job: job.completed_at or 0, reverse=True)
        return MonitorState(
            machines=[self._machine_view(node) for node in nodes],
            workers=[worker for node in nodes for worker in worker_views(node)],
            jobs=JobLists(
                pending=await self._first(JobStatus.PENDING) + await self._first(JobStatus.UNWORKABLE),
                active=active,
                completed=await self._first(JobStatus.COMPLETED),
                failed=failed[:_SHOWN_PER_STATE],
            ),
            system_stats=await self.stats(),
        )

    async def _first(self, status: JobStatus) -> list[JobView]:
        page = await self._jobs.page(status, None, _SHOWN_PER_STATE)
        return [job_view(job, whole=False) for job in page.jobs]

    def _machine_view(self, node: Node) -> MachineView:
        return machine_view(node, late=self._fleet.is_late(node), now_ms=self._clock.now_ms())
