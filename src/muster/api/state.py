"""The monitor's picture of everything: what its snapshot holds and what live events are made of."""

from collections.abc import Callable, Sequence

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster import __version__
from muster.api.lines import MachineLine, machine_line
from muster.api.views import (
    JobView,
    MachineView,
    WorkerView,
    job_view,
    machine_status,
    machine_view,
    worker_views,
)
from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.control.jobs.service import JobService
from muster.domain.job import ACTIVE, JobStatus
from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus
from muster.events.selection import Selection
from muster.ids import JobId, NodeId

_SHOWN_PER_STATE = 50
_SEARCHED_PER_STATE = 500
# In the order of a job's life, so that none slips past us; and the first ones once more, for those that went back.
_LOOKS = (
    JobStatus.UNWORKABLE,
    JobStatus.PENDING,
    JobStatus.ASSIGNED,
    JobStatus.IN_PROGRESS,
    JobStatus.FAILED,
    JobStatus.TIMEOUT,
    JobStatus.COMPLETED,
    JobStatus.UNWORKABLE,
    JobStatus.PENDING,
)


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
    suspects_itself: bool = False  # most nodes are silent at once, which is likely our own fault: nobody is judged


class JobLists(Struct, frozen=True, kw_only=True):
    """At most 50 each, without payloads and results; the counts in system_stats are whole."""

    pending: list[JobView]
    active: list[JobView]
    completed: list[JobView]
    failed: list[JobView]


class MonitorState(Struct, frozen=True, kw_only=True):
    """`lines` tells of every machine when only some of a large fleet are in `machines`."""

    machines: list[MachineView]
    workers: list[WorkerView]
    jobs: JobLists
    system_stats: SystemStats
    lines: list[MachineLine] | UnsetType = UNSET


class MachineSign(Struct, frozen=True, kw_only=True, tag_field="type", tag="periodic_status_update"):
    """What is told of a machine now and then even when nothing changes."""

    machine_id: str
    status: str
    last_seen: int
    timestamp: int


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

    async def whole_jobs(self, job_ids: Sequence[JobId]) -> list[JobView]:
        return [job_view(job, whole=True) for job in await self._jobs.get_many(job_ids)]

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
            suspects_itself=self._fleet.book.suspects_itself,
        )

    def signs_of_life(self) -> list[MachineSign]:
        now_ms = self._clock.now_ms()
        return [
            MachineSign(
                machine_id=node.node_id, status=machine_status(node), last_seen=node.last_seen_ms, timestamp=now_ms
            )
            for node in self._fleet.nodes()
        ]

    def size(self) -> int:
        return len(self._fleet.nodes())

    def lines(self) -> list[MachineLine]:
        return [machine_line(node, late=self._fleet.is_late(node)) for node in self._fleet.nodes()]

    async def snapshot(self, selection: Selection | None = None) -> MonitorState:
        """Without a selection everything, else its machines and the jobs that they have or had, or all jobs."""
        nodes = self._fleet.nodes()
        if selection is None:
            return await self.state(nodes)
        wanted = selection.machines
        if selection.all_jobs:
            jobs = await self._job_lists(_SHOWN_PER_STATE)
        else:
            jobs = await self._job_lists(_SEARCHED_PER_STATE, lambda job: job.machine_id in wanted)
        state = await self._state([node for node in nodes if node.node_id in wanted], jobs)
        return replace(state, lines=self.lines()) if selection.lines else state

    async def state(self, nodes: Sequence[Node]) -> MonitorState:
        return await self._state(nodes, await self._job_lists(_SHOWN_PER_STATE))

    async def _state(self, nodes: Sequence[Node], jobs: JobLists) -> MonitorState:
        return MonitorState(
            machines=[self._machine_view(node) for node in nodes],
            workers=[worker for node in nodes for worker in worker_views(node)],
            jobs=jobs,
            system_stats=await self.stats(),
        )

    async def _job_lists(self, per_state: int, wanted: Callable[[JobView], bool] = lambda _: True) -> JobLists:
        """Show each job in one list only, although they move while we look: the last look at it counts."""
        latest: dict[str, JobView] = {}
        for status in _LOOKS:
            page = await self._jobs.page(status, None, per_state)
            views = (job_view(job, whole=False) for job in page.jobs)
            latest |= {job.job_id: job for job in views if wanted(job)}

        def shown(*statuses: JobStatus) -> list[JobView]:
            return [job for job in latest.values() if job.status in statuses]

        def newest(*statuses: JobStatus) -> list[JobView]:
            return sorted(shown(*statuses), key=lambda job: job.completed_at or 0, reverse=True)[:_SHOWN_PER_STATE]

        return JobLists(
            pending=shown(JobStatus.PENDING, JobStatus.UNWORKABLE)[:_SHOWN_PER_STATE],
            active=shown(*ACTIVE),
            completed=newest(JobStatus.COMPLETED),
            failed=newest(JobStatus.FAILED, JobStatus.TIMEOUT),
        )

    def _machine_view(self, node: Node) -> MachineView:
        return machine_view(node, late=self._fleet.is_late(node), now_ms=self._clock.now_ms())
