"""What people see of and do to many jobs at once: queues, customers, and the jobs that ended badly."""

from collections.abc import Sequence

from msgspec import Struct

from muster.clock import Clock
from muster.control.jobs.service import JobService
from muster.domain.job import Job, JobStatus
from muster.domain.queue import ALL_SERVICES, CustomerFigures, CustomerTerms, QueueFigures
from muster.errors import InvalidInput, InvalidTransition, JobNotFound
from muster.ids import JobId, check_name
from muster.jobs.order import WEIGHT_MAX
from muster.ports import JobLines

LOOKED_AT_MAX = 1_000  # jobs in one call: it can be repeated from where it ended
_NAME_CHARS_MAX = 256
_LIMIT_MAX = 1_000_000
_EXAMPLES_MAX = 5
_SEARCHED_AT_ONCE = 200
BAD_ENDS = (JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED)


class QueueState(Struct, frozen=True, kw_only=True):
    figures: QueueFigures
    oldest_age_s: float | None


class _Whose(Struct, frozen=True, kw_only=True):
    """What is None does not matter."""

    service: str | None = None
    customer_id: str | None = None
    workflow_id: str | None = None

    def fits(self, job: Job) -> bool:
        spec = job.spec
        return (
            self.service in (None, spec.service_required)
            and self.customer_id in (None, spec.customer_id)
            and self.workflow_id in (None, spec.workflow_id)
        )


class Filter(_Whose, frozen=True, kw_only=True):
    """Which of the jobs that ended badly. `since` is ms since the epoch."""

    status: JobStatus = JobStatus.FAILED
    code: str | None = None
    since: int | None = None

    def fits(self, job: Job) -> bool:
        state = job.state
        return (
            super().fits(job)
            and self.code in (None, state.error.code if state.error else None)
            and (self.since is None or (state.completed_at or 0) >= self.since)
        )


class Search(_Whose, frozen=True, kw_only=True):
    """Which jobs. `text` occurs, in any case, in a name or an error."""

    status: JobStatus | None = None
    text: str | None = None

    def fits(self, job: Job) -> bool:
        spec, state = job.spec, job.state
        error = state.error
        names = (
            job.job_id,
            spec.service_required,
            spec.customer_id,
            spec.workflow_id,
            state.worker_id,
            error and error.code,
            error and error.message,
        )
        return super().fits(job) and (
            not self.text or any(self.text.casefold() in name.casefold() for name in names if name)
        )


class Found(Struct, frozen=True, kw_only=True):
    """`next_cursor` leads on; None: all were looked at."""

    jobs: tuple[Job, ...]
    looked_at: int
    next_cursor: str | None


class Replayed(Struct, frozen=True, kw_only=True):
    """`next_cursor` leads on; None: all were looked at."""

    job_ids: tuple[JobId, ...]
    looked_at: int
    next_cursor: str | None


class Failures(Struct, frozen=True, kw_only=True):
    """Jobs that ended badly, by service and code of error, the most frequent first."""

    groups: tuple["FailureGroup", ...]
    looked_at: int
    next_cursor: str | None


class FailureGroup(Struct, kw_only=True):
    """`message` is that of the newest; `job_ids` are a few of them."""

    service: str
    code: str
    message: str
    count: int = 0
    job_ids: list[JobId] = []


class QueueService:
    def __init__(self, lines: JobLines, jobs: JobService, clock: Clock) -> None:
        self._lines = lines
        self._jobs = jobs
        self._clock = clock

    # --- queues -------------------------------------------------------------------------------------------------------

    async def queues(self) -> list[QueueState]:
        figures = await self._lines.queues()
        first = await self._jobs.get_many([job_id for queue in figures for job_id in queue.first])
        created = {job.job_id: job.spec.created_at for job in first}
        return [self._state(queue, created) for queue in figures]

    async def all_paused(self) -> bool:
        return ALL_SERVICES in await self._lines.paused()

    async def set_paused(self, name: str, *, paused: bool) -> QueueState:
        """Pause or resume one queue, or all of them: `all` or `*`."""
        service = ALL_SERVICES if name in ("all", ALL_SERVICES) else check_name(name, "name")
        await self._lines.set_paused(service, paused=paused)
        if service == ALL_SERVICES:
            return QueueState(figures=QueueFigures(service=service, paused=paused), oldest_age_s=None)
        known = [queue for queue in await self.queues() if queue.figures.service == service]
        return (
            known[0] if known else QueueState(figures=QueueFigures(service=service, paused=paused), oldest_age_s=None)
        )

    def _state(self, queue: QueueFigures, created: dict[JobId, int]) -> QueueState:
        oldest = min((created[job_id] for job_id in queue.first if job_id in created), default=None)
        age_s = None if oldest is None else max(0, self._clock.now_ms() - oldest) / 1000
        return QueueState(figures=queue, oldest_age_s=age_s)

    # --- jobs, by what is known of them -------------------------------------------------------------------------------

    async def search(self, wanted: Search, cursor: str | None, limit: int) -> Found:
        """Look through jobs until about `limit` are found or LOOKED_AT_MAX were looked at."""
        found: list[Job] = []
        looked_at = 0
        while True:
            page = await self._jobs.page(wanted.status, cursor, _SEARCHED_AT_ONCE)
            found += [job for job in page.jobs if wanted.fits(job)]
            looked_at += len(page.jobs)
            cursor = page.next_cursor
            if cursor is None or len(found) >= limit or looked_at >= LOOKED_AT_MAX:
                return Found(jobs=tuple(found), looked_at=looked_at, next_cursor=cursor)

    # --- customers ----------------------------------------------------------------------------------------------------

    async def customers(self) -> list[CustomerFigures]:
        return await self._lines.customers()

    async def customer(self, name: str) -> CustomerFigures:
        return await self._lines.customer(_checked(name))

    async def set_customer(self, name: str, terms: CustomerTerms) -> CustomerFigures:
        _checked(name)
        if not 1 <= terms.weight <= WEIGHT_MAX:
            raise InvalidInput(f"weight must be 1 to {WEIGHT_MAX}, got {terms.weight}", field="weight")
        for field in ("running_max", "waiting_max"):
            most = getattr(terms, field)
            if most is not None and not 0 <= most <= _LIMIT_MAX:
                raise InvalidInput(f"{field} must be 0 to {_LIMIT_MAX}, got {most}", field=field)
        await self._lines.set_customer(name, terms)
        return await self._lines.customer(name)

    async def forget_customer(self, name: str) -> None:
        await self._lines.set_customer(_checked(name), None)

    # --- jobs that ended badly ----------------------------------------------------------------------------------------

    async def failures(self, wanted: Filter, cursor: str | None) -> Failures:
        page, jobs = await self._find(wanted, cursor, LOOKED_AT_MAX)
        groups: dict[tuple[str, str], FailureGroup] = {}
        for job in jobs:
            error = job.state.error
            code, message = (error.code, error.message) if error else (str(job.state.status), "")
            kind = (job.spec.service_required, code)
            group = groups.setdefault(kind, FailureGroup(service=kind[0], code=code, message=message))
            group.count += 1
            group.job_ids = [*group.job_ids, job.job_id][:_EXAMPLES_MAX]
        ordered = sorted(groups.values(), key=lambda group: (-group.count, group.service, group.code))
        return Failures(groups=tuple(ordered), looked_at=page[0], next_cursor=page[1])

    async def replay(self, wanted: Filter, cursor: str | None, limit: int) -> Replayed:
        """Put jobs back into the queue, the newest first: the last call's cursor says where to go on."""
        page, jobs = await self._find(wanted, cursor, limit)
        replayed = [job.job_id for job in jobs if await self._revived(job.job_id)]
        return Replayed(job_ids=tuple(replayed), looked_at=page[0], next_cursor=page[1])

    async def _find(
        self, wanted: Filter, cursor: str | None, limit: int
    ) -> tuple[tuple[int, str | None], Sequence[Job]]:
        if wanted.status not in BAD_ENDS:
            raise InvalidInput(f"status must be one of {', '.join(BAD_ENDS)}, got {wanted.status}", field="status")
        if not 1 <= limit <= LOOKED_AT_MAX:
            raise InvalidInput(f"limit must be 1 to {LOOKED_AT_MAX}, got {limit}", field="limit")
        page = await self._jobs.page(wanted.status, cursor, limit)
        return (len(page.jobs), page.next_cursor), [job for job in page.jobs if wanted.fits(job)]

    async def _revived(self, job_id: JobId) -> bool:
        try:
            await self._jobs.retry(job_id)
        except (InvalidTransition, JobNotFound):  # somebody was faster
            return False
        return True


def _checked(name: str) -> str:
    if not 1 <= len(name) <= _NAME_CHARS_MAX:
        raise InvalidInput(f"customer_id must have 1 to {_NAME_CHARS_MAX} characters", field="customer_id")
    return name
