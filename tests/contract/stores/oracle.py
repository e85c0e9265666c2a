"""The job store as a few plain rules: what the real ones must do, said as simply as it can be."""

from collections import Counter
from typing import Any

from msgspec import Struct, field

from muster.domain.capability import Capability
from muster.domain.job import ACTIVE, TERMINAL, JobSpec, JobStatus
from muster.ids import JobId
from muster.jobs.matching import match
from muster.jobs.order import STEP

LEASE_MS = 15_000


class Told(Struct):
    """A job as it should be."""

    spec: JobSpec
    number: int
    place: int | None = None
    status: JobStatus = JobStatus.PENDING
    attempt: int = 0
    retries: int = 0
    session: str | None = None
    started_ms: int = 0
    due_ms: int | None = None
    expires_ms: int | None = None
    unmet: set[str] = field(default_factory=set)
    ends: int = 0
    ended_ms: int = 0

    @property
    def in_line(self) -> bool:
        return self.status is JobStatus.PENDING and not self.unmet and self.due_ms is None

    @property
    def rank(self) -> tuple[int, int, str]:
        return (-self.spec.priority, self.place or 0, self.spec.job_id)


class Session(Struct):
    capability: Capability
    ends_ms: int


class Oracle:
    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.jobs: dict[str, Told] = {}
        self.sessions: dict[str, Session] = {}
        self.limits: dict[str, int] = {}
        self.paused: set[str] = set()
        self.ends: Counter[str] = Counter()  # terminal events, also of jobs that were purged
        self._clock: Counter[int] = Counter()  # of each priority
        self._tags: Counter[tuple[str | None, int]] = Counter()

    # --- what the machine does ----------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec) -> bool:
        if spec.job_id in self.jobs:
            return False
        job = Told(spec=spec, number=len(self.jobs))
        self.jobs[spec.job_id] = job
        if spec.run_at is not None and spec.run_at > self.now_ms:
            job.due_ms = spec.run_at
        else:
            job.place = self._next_place(job)
        if spec.deadline_s is not None:
            job.expires_ms = self.now_ms + round(spec.deadline_s * 1000)
        self._settle_in(job)
        return True

    def claim(self, session_id: str, want: int) -> list[tuple[JobId, int]]:
        session = self.sessions[session_id]
        session.ends_ms = self.now_ms + LEASE_MS
        taken: list[tuple[JobId, int]] = []
        for job in sorted((job for job in self.jobs.values() if job.in_line), key=lambda job: job.rank):
            if len(taken) < want and self._may_run(job, session):
                job.status, job.session, job.started_ms = JobStatus.ASSIGNED, session_id, self.now_ms
                job.attempt += 1
                self._clock[job.spec.priority] = max(self._clock[job.spec.priority], job.place or 0)
                taken.append((job.spec.job_id, job.attempt))
        return taken

    def end_attempt(self, job: Told, status: JobStatus, *, counts: bool = True, at_ms: int | None = None) -> None:
        job.session = None
        if status in TERMINAL:
            self.end(job, status)
            return
        job.status = JobStatus.PENDING
        job.retries += counts
        job.due_ms = at_ms if at_ms is not None and at_ms > self.now_ms else None

    def end(self, job: Told, status: JobStatus) -> None:
        self._end_alone(job, status)
        self._tell_dependents(job)

    def _end_alone(self, job: Told, status: JobStatus) -> None:
        job.status, job.session, job.due_ms, job.unmet, job.ended_ms = status, None, None, set(), self.now_ms
        self.ends[job.spec.job_id] += 1

    def _tell_dependents(self, job: Told) -> None:
        for other in list(self.jobs.values()):
            if job.spec.job_id in other.unmet:
                if job.status is JobStatus.COMPLETED or other.spec.on_failure == "run":
                    other.unmet.discard(job.spec.job_id)
                else:
                    self.end(other, JobStatus.FAILED)
        self._come_due()

    def revive(self, job: Told) -> None:
        job.status, job.retries, job.due_ms = JobStatus.PENDING, 0, None
        if job.spec.deadline_s is not None:
            job.expires_ms = self.now_ms + round(job.spec.deadline_s * 1000)
        self._settle_in(job)

    def tick(self) -> None:
        """End what is late, and bring into line what is due."""
        late = [job for job in self.jobs.values() if job.expires_ms is not None and job.expires_ms <= self.now_ms]
        ended = [job for job in late if job.status not in TERMINAL]
        for job in late:
            job.expires_ms = None
        for job in ended:  # all of them before the first of those who wait for one fails by it
            self._end_alone(job, JobStatus.TIMEOUT)
        for job in ended:
            self._tell_dependents(job)
        self._come_due()

    def overdue(self) -> set[JobId]:
        """Return jobs whose session or attempt is over; forget sessions that are over and hold nothing."""
        late: set[JobId] = set()
        for session_id, session in list(self.sessions.items()):
            held = self.held(session_id)
            if session.ends_ms <= self.now_ms:
                late |= {job.spec.job_id for job in held}
                if not held:
                    del self.sessions[session_id]
            else:
                late |= {j.spec.job_id for j in held if j.started_ms + j.spec.timeout_s * 1000 <= self.now_ms}
        return late

    def purge(self, keep_max: int) -> list[JobId]:
        ended = sorted(
            (job for job in self.jobs.values() if job.status in TERMINAL),
            key=lambda job: (job.ended_ms, job.spec.job_id),
        )
        gone = [job.spec.job_id for job in ended[: max(0, len(ended) - keep_max)]]
        for job_id in gone:
            del self.jobs[job_id]
        customers = {job.spec.customer_id for job in self.jobs.values()} | {None}
        for key in [key for key in self._tags if key[0] not in customers]:
            del self._tags[key]
        return gone

    # --- what it knows ------------------------------------------------------------------------------------------------

    def held(self, session_id: str) -> list[Told]:
        return [job for job in self.jobs.values() if job.session == session_id and job.status in ACTIVE]

    def line(self) -> list[JobId]:
        return [job.spec.job_id for job in sorted((j for j in self.jobs.values() if j.in_line), key=lambda j: j.rank)]

    def shown(self, job: Told) -> JobStatus:
        able = (not match(job.spec.need, has.capability, job.spec.customer_id) for has in self.sessions.values())
        return JobStatus.UNWORKABLE if job.in_line and not any(able) else job.status

    def running(self, customer: str | None) -> int:
        return sum(job.status in ACTIVE and job.spec.customer_id == customer for job in self.jobs.values())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _may_run(self, job: Told, session: Session) -> bool:
        customer: Any = job.spec.customer_id
        return (
            not match(job.spec.need, session.capability, customer)
            and job.spec.service_required not in self.paused
            and (customer not in self.limits or self.running(customer) < self.limits[customer])
        )

    def _settle_in(self, job: Told) -> None:
        for name in job.spec.depends_on:
            other = self.jobs.get(name)
            if other is None or other.status is JobStatus.COMPLETED:
                continue
            if other.status not in TERMINAL:
                job.unmet.add(name)
            elif job.spec.on_failure == "fail":
                self.end(job, JobStatus.FAILED)
                return
        self._come_due()

    def _come_due(self) -> None:
        """Time is up only when a tick says so, but for a job that waited for others longer than for its time."""
        for job in sorted(self.jobs.values(), key=lambda job: (job.due_ms or 0, job.spec.job_id)):
            if (
                job.status is JobStatus.PENDING
                and not job.unmet
                and job.due_ms is not None
                and job.due_ms <= self.now_ms
            ):
                job.due_ms = None
            if job.in_line and job.place is None:
                job.place = self._next_place(job)

    def _next_place(self, job: Told) -> int:
        who = (job.spec.customer_id, job.spec.priority)
        self._tags[who] = max(self._tags[who], self._clock[job.spec.priority]) + STEP
        return self._tags[who]
