"""The job store in memory: the ports of a job store over one table of records."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from muster.clock import Clock
from muster.domain.capability import Capability
from muster.domain.job import ACTIVE, TERMINAL, Job, JobSpec, JobState, JobStatus, Lease, Need, Settlement
from muster.domain.queue import CustomerFigures, CustomerTerms, QueueFigures
from muster.errors import JobNotFound
from muster.ids import JobId, SessionId, WorkerId, check_name
from muster.jobs import lifecycle, matching, order
from muster.jobs.lifecycle import JobSignal
from muster.ports import CapabilityClass, Claimed, Expired, JobPage, Renewed, Submitted
from muster.stores import rules
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.events import JobEvents
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.records import Record, is_due
from muster.stores.memory.table import JobTable
from muster.stores.paging import BLOCKED, DELAYED, Place, lanes_of, read_page
from muster.wire import ProgressReport

# The jobs in line, told apart by whether somebody can run them.
_STUCK, _SERVED = "stuck", "served"


class MemoryJobs:
    """A JobQueue, JobIndex, JobLines and JobUpkeep."""

    def __init__(
        self,
        clock: Clock,
        log: MemoryLog,
        bus: MemoryBus,
        *,
        avoid_s: float,
        class_keep_s: float,
        result_bytes_max: int,
    ) -> None:
        self._table = JobTable(clock, log, bus, avoid_s=avoid_s)
        self._records = self._table.records
        self._workers = self._table.workers
        self._class_keep_ms = round(class_keep_s * 1000)
        self._result_bytes_max = result_bytes_max

    # --- JobQueue -----------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        for spec in specs:  # all are looked at before anything is stored
            check_name(spec.job_id, "job_id")
        self._table.check(specs)
        submitted, doomed = [], []
        events = JobEvents()
        for spec in specs:
            created = spec.job_id not in self._records
            if created:
                if (because := self._table.add(spec)) is not None:
                    doomed.append((self._records[spec.job_id], because))
                events.add("job_submitted", spec.job_id)
            submitted.append(Submitted(job_id=spec.job_id, created=created))
        self._table.write(events)
        for record, because in doomed:
            self._table.doom(record, because)
            self._table.has_ended([record])
        return submitted

    async def open_session(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float
    ) -> None:
        rules.check_session(session_id, worker_id)
        self._workers.join(session_id, worker_id, capability, self._now_ms(), round(lease_s * 1000))

    async def claim(
        self,
        session_id: SessionId,
        worker_id: WorkerId,  # noqa: ARG002 - the session knows whose it is
        want: int,
        done: Sequence[Settlement] = (),
        *,
        lease_s: float,
        mark_idle: bool = False,
    ) -> Claimed:
        session = self._workers.sessions.get(session_id)
        refused = self._settle_held(session_id, session.worker_id if session else None, done)
        if session is None:
            return Claimed(refused=refused, session_known=False)
        session.ends_ms = self._now_ms() + round(lease_s * 1000)
        taken = self._table.take(session, want)
        if not taken and mark_idle and want > 0:
            self._workers.idle.add(session.class_id)
        events = JobEvents()
        claimed = tuple(self._table.lease(record, session_id, session) for record in taken)
        for job in claimed:
            events.add("job_claimed", job.spec.job_id, session.worker_id, job.attempt)
        self._table.write(events)
        return Claimed(jobs=claimed, refused=refused)

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        events = JobEvents()
        accepted, ended = [], []
        for settlement in settlements:
            record = self._records.get(settlement.job_id)
            if record is None or record.state.status not in ACTIVE or record.state.attempt != settlement.attempt:
                accepted.append(False)
                continue
            self._table.end_attempt(record, rules.bounded(settlement, self._result_bytes_max), events)
            ended.append(record)
            accepted.append(True)
        self._attempts_ended(ended, events)
        return accepted

    async def renew(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], *, lease_s: float, grace_s: float
    ) -> Renewed:
        leases = self._workers.leases(session_id)
        current = {job_id for job_id, attempt in held if leases.get(job_id) == attempt}
        lost = tuple(dict.fromkeys(job_id for job_id, _ in held if job_id not in current))
        session = self._workers.sessions.get(session_id)
        if session is None:
            return Renewed(lost=lost, session_known=False)
        now_ms = self._now_ms()
        session.ends_ms = now_ms + round(lease_s * 1000)
        unheld = [self._records[job_id] for job_id in leases if job_id not in current]
        old_ms = now_ms - round(grace_s * 1000)
        return Renewed(
            lost=lost, returned=self._return(record for record in unheld if (record.state.started_at or 0) < old_ms)
        )

    async def record_progress(self, session_id: SessionId, reports: Sequence[ProgressReport]) -> list[JobId]:
        leases = self._workers.leases(session_id)
        events = JobEvents()
        lost: dict[JobId, None] = {}
        for report in reports:
            if leases.get(report.job_id) != report.attempt:
                lost[report.job_id] = None
                continue
            record = self._records[report.job_id]
            if record.state.status is JobStatus.ASSIGNED:
                events.add("job_started", report.job_id, record.state.worker_id, report.attempt)
            record.change(
                status=lifecycle.next_status(report.job_id, record.state.status, JobSignal.PROGRESSED),
                progress=msgspec.structs.replace(report.progress, at_ms=self._now_ms()),
            )
        self._table.write(events)
        return list(lost)

    async def close_session(self, session_id: SessionId) -> list[JobId]:
        returned = self._return(self._records[job_id] for job_id in self._workers.leases(session_id))
        self._workers.leave(session_id, self._now_ms())
        return list(returned)

    # --- JobIndex -----------------------------------------------------------------------------------------------------

    async def get(self, job_ids: Sequence[JobId]) -> list[Job | None]:
        records = [self._records.get(job_id) for job_id in job_ids]
        return [None if record is None else Job(spec=record.spec, state=record.state) for record in records]

    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        lanes = lanes_of(status, [_STUCK], [_SERVED])
        job_ids, next_cursor = await read_page(lanes, cursor, limit, self._fetch)
        records = [self._records[job_id] for job_id in job_ids]
        return JobPage(
            jobs=tuple(Job(spec=r.spec, state=msgspec.structs.replace(r.state, result=UNSET)) for r in records),
            total=sum(len(self._places(name)) for lane in lanes for name in lane.sets),
            next_cursor=next_cursor,
        )

    async def counts(self) -> dict[JobStatus, int]:
        counts: dict[JobStatus, int] = dict.fromkeys(JobStatus, 0)
        for record in self._records.values():
            counts[record.state.status] += 1
        counts[JobStatus.UNWORKABLE] = len(self._places(_STUCK))
        counts[JobStatus.PENDING] -= counts[JobStatus.UNWORKABLE]
        return counts

    async def position(self, job_id: JobId) -> int | None:
        record = self._records.get(job_id)
        return None if record is None else self._table.rank(record)

    async def waiting(self, need: Need) -> int:
        wanted = matching.signature(need)
        return sum(self._records[job_id].signature == wanted for _, job_id in self._table.line)

    async def cancel(self, job_id: JobId) -> Job:
        record = self._known(job_id)
        state = record.state
        status = lifecycle.next_status(job_id, state.status, JobSignal.CANCELLED)
        if state.status is JobStatus.PENDING:
            self._table.end_unstarted(record, JobSignal.CANCELLED)
        else:
            self._table.drop_lease(record)
            record.change(status=status, completed_at=self._now_ms())
        events = JobEvents()
        events.add("job_cancelled", job_id, state.worker_id, state.attempt)
        self._attempts_ended([record], events)
        return Job(spec=record.spec, state=record.state)

    async def revive(self, job_id: JobId) -> Job:
        record = self._known(job_id)
        status = lifecycle.next_status(job_id, record.state.status, JobSignal.REVIVED)
        record.state = JobState(status=status, attempt=record.state.attempt)
        record.settled_for = None
        if record.spec.deadline_s is not None:
            record.expires_ms = self._now_ms() + round(record.spec.deadline_s * 1000)
        self._table.workflows.opened(record.spec)
        self._table.tell("job_revived", job_id)
        if (because := self._table.settle_in(record)) is not None:
            self._table.doom(record, because)
        return Job(spec=record.spec, state=record.state)

    # --- JobLines -----------------------------------------------------------------------------------------------------

    async def queues(self) -> list[QueueFigures]:
        named = {record.spec.service_required for record in self._records.values()}
        return [self._queue(name) for name in sorted(named | (self._table.paused - {"*"}))]

    async def paused(self) -> frozenset[str]:
        return frozenset(self._table.paused)

    async def set_paused(self, service: str, *, paused: bool) -> bool:
        if (service in self._table.paused) is paused:
            return False
        if paused:
            self._table.paused.add(service)
        else:
            self._table.paused.discard(service)
            self._table.wake_all()
        return True

    async def customers(self) -> list[CustomerFigures]:
        return [await self.customer(name) for name in sorted(self._table.customers.terms)]

    async def customer(self, name: str) -> CustomerFigures:
        return self._table.customers.figures(name, self._records.values())

    async def set_customer(self, name: str, terms: CustomerTerms | None) -> bool:
        known = self._table.customers.terms.pop(name, None) is not None
        if terms is not None:
            self._table.customers.terms[name] = terms
        self._table.wake_all()
        return known

    def _queue(self, service: str) -> QueueFigures:
        table, now_ms = self._table, self._now_ms()
        in_line = [self._records[job_id] for _, job_id in table.line]
        waiting = [record for record in in_line if record.spec.service_required == service]
        first: dict[int, JobId] = {}
        for record in waiting:
            first.setdefault(order.priority_of(record.score), record.job_id)
        running = (r for r in self._records.values() if r.state.status in ACTIVE)
        return QueueFigures(
            service=service,
            paused=service in table.paused or "*" in table.paused,
            waiting=len(waiting),
            unworkable=sum(not self._is_served(record.place) for record in waiting),
            running=sum(record.spec.service_required == service for record in running),
            submitted_per_min=table.rates.per_min(service, "submitted", now_ms),
            completed_per_min=table.rates.per_min(service, "completed", now_ms),
            failed_per_min=table.rates.per_min(service, "failed", now_ms),
            first=tuple(sorted(first.values())),
        )

    # --- JobUpkeep ----------------------------------------------------------------------------------------------------

    async def overdue(self, limit: int) -> list[Lease]:
        now_ms = self._now_ms()
        leases: list[Lease] = []
        for session_id, session in list(self._workers.sessions.items()):
            expired = "session" if session.ends_ms <= now_ms else "deadline"
            if expired == "session" and not session.leases:
                self._workers.leave(session_id, now_ms)
            leases += [
                record.lost_lease(session_id, session.worker_id, expired)
                for record in map(self._records.__getitem__, session.leases)
                if expired == "session" or record.deadline_ms <= now_ms
            ]
        return leases[:limit]

    async def promote(self, limit: int) -> int:
        now_ms = self._now_ms()
        timed = [self._records[job_id] for job_id in self._table.timed]
        due = [record for record in timed if is_due(record.state.next_attempt_at, now_ms)]
        due = sorted(due, key=lambda record: (record.state.next_attempt_at, record.job_id))[:limit]
        for record in due:
            self._table.queue(record)
        forgiven = [record for record in timed if is_due(record.avoid_until_ms, now_ms)][: limit - len(due)]
        for record in forgiven:
            self._table.leave_line(record)
            record.change(avoid_worker=None)
            self._table.queue(record)
        return len(due) + len(forgiven)

    async def expire(self, limit: int) -> Expired:
        now_ms = self._now_ms()
        due = [record for record in self._records.values() if is_due(record.expires_ms, now_ms)][:limit]
        jobs, events = [], JobEvents()
        for record in due:
            record.expires_ms = None
            state = record.state
            if state.status in ACTIVE:
                jobs.append((record.job_id, state.worker_id))
                timeout = Settlement(
                    job_id=record.job_id,
                    attempt=state.attempt,
                    status=JobStatus.TIMEOUT,
                    error=rules.DEADLINE_ERROR,
                )
                self._table.end_attempt(record, timeout, events)
            elif state.status is JobStatus.PENDING:
                jobs.append((record.job_id, None))
                self._table.end_unstarted(record, JobSignal.TIMED_OUT, rules.DEADLINE_ERROR)
        self._attempts_ended(due, events)
        return Expired(jobs=tuple(jobs), more=len(due) == limit)

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int:
        ended = sorted(
            (r.state.completed_at or 0, r.job_id) for r in self._records.values() if r.state.status in TERMINAL
        )
        surplus = len(ended) - keep_max
        gone = [place for rank, place in enumerate(ended) if rank < surplus or place[0] < ended_before_ms][:limit]
        for _, job_id in gone:
            del self._records[job_id]
        self._table.ranks.forget([record.spec for record in self._records.values()])
        self._table.workflows.forget({record.spec.workflow_id for record in self._records.values()})
        signatures = {record.signature for record in self._records.values()}
        self._workers.forget(self._now_ms() - self._class_keep_ms, signatures)
        return len(gone)

    async def classes(self) -> list[CapabilityClass]:
        return list(self._workers.classes())

    # --- attempts -----------------------------------------------------------------------------------------------------

    def _settle_held(
        self, session_id: SessionId, worker_id: WorkerId | None, done: Sequence[Settlement]
    ) -> tuple[JobId, ...]:
        """End attempts of this session; return the ids of those that came too late to count."""
        events = JobEvents()
        refused, ended = [], []
        for given in done:
            settlement = rules.bounded(given, self._result_bytes_max)
            record = self._records.get(settlement.job_id)
            if record is not None and self._workers.leases(session_id).get(settlement.job_id) == settlement.attempt:
                self._table.end_attempt(record, settlement, events)
                ended.append(record)
            elif record is None or not record.repeats(session_id, settlement):
                refused.append(settlement.job_id)
                if record is not None:  # else it is only somebody's word
                    events.add("job_refused", settlement.job_id, worker_id, settlement.attempt)
        self._attempts_ended(ended, events)
        return tuple(refused)

    def _return(self, records: Iterable[Record]) -> tuple[JobId, ...]:
        """Put leased jobs back as if the attempt had not been."""
        events = JobEvents()
        returned = list(records)
        for record in returned:
            attempt = record.state.attempt
            back = Settlement(job_id=record.job_id, attempt=attempt, status=JobStatus.PENDING, counts=False)
            self._table.end_attempt(record, back, events)
        self._attempts_ended(returned, events)
        return tuple(record.job_id for record in returned)

    def _attempts_ended(self, records: Sequence[Record], events: JobEvents) -> None:
        self._table.write(events)
        self._table.has_ended(records)
        if any(record.spec.customer_id in self._table.customers.terms for record in records):
            self._table.wake_all()  # there may be room for its next ones

    # --- pages --------------------------------------------------------------------------------------------------------

    def _places(self, name: str) -> list[Place]:
        """Return one of the sets that pages are made of, sorted."""
        if name == JobStatus.PENDING:
            return self._table.line
        if name in (_STUCK, _SERVED):
            return [place for place in self._table.line if self._is_served(place) is (name == _SERVED)]
        records = list(self._records.values())
        if name == BLOCKED:
            return sorted((record.score, record.job_id) for record in records if record.unmet)
        if name == DELAYED:
            return sorted(
                (at, r.job_id) for r in records if not r.unmet and (at := r.state.next_attempt_at) is not None
            )
        states = [(record.state, record.job_id) for record in records]
        return sorted(((s.completed_at or s.started_at or 0), job_id) for s, job_id in states if s.status == name)

    def _is_served(self, place: Place) -> bool:
        record = self._records[place[1]]
        return self._workers.somebody_can_run(record.signature, record.spec)

    async def _fetch(self, name: str, after: Place | None, limit: int, *, newest_first: bool) -> list[Place]:
        places = self._places(name)
        if after is not None:
            places = [place for place in places if (place < after if newest_first else place > after)]
        return (places[::-1] if newest_first else places)[:limit]

    def _known(self, job_id: JobId) -> Record:
        record = self._records.get(job_id)
        if record is None:
            raise JobNotFound(f"no job {job_id!r}: it never was, or it ended long ago", field="job_id")
        return record

    def _now_ms(self) -> int:
        return self._table.now_ms()
