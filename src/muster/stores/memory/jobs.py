"""The job store in memory: one record a job, one sorted line of those that wait, scans for the rest."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from muster.clock import Clock
from muster.domain.capability import Capability
from muster.domain.job import ACTIVE, TERMINAL, ClaimedJob, Job, JobSpec, JobState, JobStatus, Lease, Need, Settlement
from muster.errors import JobNotFound
from muster.ids import JobId, SessionId, WorkerId, check_name
from muster.jobs import lifecycle, matching, order
from muster.jobs.lifecycle import JobSignal
from muster.ports import CapabilityClass, Claimed, JobPage, Renewed, Submitted
from muster.stores import rules
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.events import JobEvents
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.records import Record, is_due
from muster.stores.memory.workers import Session, Workers
from muster.stores.paging import DELAYED, Place, lanes_of, read_page
from muster.wire import ProgressReport


class MemoryJobs:
    """A JobQueue, JobIndex and JobUpkeep."""

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
        self._clock = clock
        self._log = log
        self._bus = bus
        self._avoid_ms = round(avoid_s * 1000)
        self._class_keep_ms = round(class_keep_s * 1000)
        self._result_bytes_max = result_bytes_max
        self._records: dict[JobId, Record] = {}
        self._line: list[Place] = []  # sorted
        self._timed: dict[JobId, None] = {}  # those that `promote` has to look at
        self._sequence = 0
        self._workflows: dict[str, int] = {}
        self._workers = Workers()

    # --- JobQueue -----------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        for spec in specs:  # all are looked at before anything is stored
            check_name(spec.job_id, "job_id")
        submitted = []
        events = JobEvents()
        for spec in specs:
            created = spec.job_id not in self._records
            if created:
                score = order.score(order.order_priority(spec), self._sequence_of(spec))
                record = Record(spec=spec, signature=matching.signature(spec.need), score=score, state=JobState())
                self._records[spec.job_id] = record
                self._queue(record)
                events.add("job_submitted", spec.job_id)
            submitted.append(Submitted(job_id=spec.job_id, created=created))
        events.write(self._log, self._now_ms())
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
        taken = self._take(session, want)
        if not taken and mark_idle and want > 0:
            self._workers.idle.add(session.class_id)
        events = JobEvents()
        claimed = tuple(self._lease(record, session_id, session) for record in taken)
        for job in claimed:
            events.add("job_claimed", job.spec.job_id, session.worker_id, job.attempt)
        events.write(self._log, self._now_ms())
        return Claimed(jobs=claimed, refused=refused)

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        events = JobEvents()
        accepted = []
        for settlement in settlements:
            record = self._records.get(settlement.job_id)
            if record is None or record.state.status not in ACTIVE or record.state.attempt != settlement.attempt:
                accepted.append(False)
                continue
            self._end_attempt(record, rules.bounded(settlement, self._result_bytes_max), events)
            accepted.append(True)
        events.write(self._log, self._now_ms())
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
        events.write(self._log, self._now_ms())
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
        lanes = lanes_of(status)
        job_ids, next_cursor = await read_page(lanes, cursor, limit, self._fetch)
        records = [self._records[job_id] for job_id in job_ids]
        return JobPage(
            jobs=tuple(Job(spec=r.spec, state=msgspec.structs.replace(r.state, result=UNSET)) for r in records),
            total=sum(len(self._places(name)) for lane in lanes for name in lane.sets),
            next_cursor=next_cursor,
        )

    async def counts(self) -> dict[JobStatus, int]:
        counts: dict[JobStatus, int] = {status: 0 for status in JobStatus if status is not JobStatus.UNWORKABLE}
        for record in self._records.values():
            counts[record.state.status] += 1
        return counts

    async def position(self, job_id: JobId) -> int | None:
        record = self._records.get(job_id)
        return None if record is None else self._rank(record)

    async def waiting(self, need: Need) -> int:
        wanted = matching.signature(need)
        return sum(found.signature == wanted and self._rank(found) is not None for found in self._records.values())

    async def cancel(self, job_id: JobId) -> Job:
        record = self._known(job_id)
        state = record.state
        status = lifecycle.next_status(job_id, state.status, JobSignal.CANCELLED)
        self._leave_line(record)
        self._drop_lease(record)
        record.change(status=status, completed_at=self._now_ms(), next_attempt_at=None, avoid_worker=None)
        events = JobEvents()
        events.add("job_cancelled", job_id, state.worker_id, state.attempt)
        events.write(self._log, self._now_ms())
        return Job(spec=record.spec, state=record.state)

    async def revive(self, job_id: JobId) -> Job:
        record = self._known(job_id)
        status = lifecycle.next_status(job_id, record.state.status, JobSignal.REVIVED)
        record.state = JobState(status=status, attempt=record.state.attempt)
        record.settled_for = None
        self._queue(record)
        events = JobEvents()
        events.add("job_revived", job_id)
        events.write(self._log, self._now_ms())
        return Job(spec=record.spec, state=record.state)

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
        timed = [self._records[job_id] for job_id in self._timed]
        due = [record for record in timed if is_due(record.state.next_attempt_at, now_ms)][:limit]
        for record in due:
            self._queue(record)
        forgiven = [record for record in timed if is_due(record.avoid_until_ms, now_ms)][: limit - len(due)]
        for record in forgiven:
            self._leave_line(record)
            record.change(avoid_worker=None)
            self._queue(record)
        return len(due) + len(forgiven)

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int:
        ended = sorted(
            (r.state.completed_at or 0, r.job_id) for r in self._records.values() if r.state.status in TERMINAL
        )
        surplus = len(ended) - keep_max
        gone = [place for rank, place in enumerate(ended) if rank < surplus or place[0] < ended_before_ms][:limit]
        for _, job_id in gone:
            del self._records[job_id]
        workflows = {record.spec.workflow_id for record in self._records.values()}
        self._workflows = {name: place for name, place in self._workflows.items() if name in workflows}
        signatures = {record.signature for record in self._records.values()}
        self._workers.forget(self._now_ms() - self._class_keep_ms, signatures)
        return len(gone)

    async def classes(self) -> list[CapabilityClass]:
        return list(self._workers.classes())

    # --- the line -----------------------------------------------------------------------------------------------------

    def _sequence_of(self, spec: JobSpec) -> int:
        self._sequence += 1
        if spec.workflow_id is None:
            return self._sequence
        return self._workflows.setdefault(spec.workflow_id, self._sequence)

    def _queue(self, record: Record) -> None:
        """Put a job in its place in line; its avoided worker is left out as long as others can run it."""
        now_ms = self._now_ms()
        avoid = record.state.avoid_worker
        if avoid and not self._workers.others_can_run(avoid, record.signature, record.spec, now_ms):
            avoid = None
        self._timed.pop(record.job_id, None)
        record.avoid_until_ms = None
        if avoid is not None:
            record.avoid_until_ms = now_ms + self._avoid_ms
            self._timed[record.job_id] = None
        record.change(avoid_worker=avoid, next_attempt_at=None)
        insort(self._line, record.place)
        for class_id in [name for name in self._workers.idle if self._can_run(name, record)]:
            self._workers.idle.discard(class_id)
            self._bus.send(rules.WAKE_TOPIC, class_id.encode())

    def _take(self, session: Session, want: int) -> list[Record]:
        taken: list[Record] = []
        for _, job_id in self._line:
            if len(taken) >= want:
                break
            record = self._records[job_id]
            if record.state.avoid_worker != session.worker_id and self._can_run(session.class_id, record):
                taken.append(record)
        for record in taken:
            self._leave_line(record)
        return taken

    def _can_run(self, class_id: str, record: Record) -> bool:
        return self._workers.can_run(class_id, record.signature, record.spec)

    def _rank(self, record: Record) -> int | None:
        rank = bisect_left(self._line, record.place)
        return rank if rank < len(self._line) and self._line[rank] == record.place else None

    def _leave_line(self, record: Record) -> None:
        if (rank := self._rank(record)) is not None:
            del self._line[rank]
        self._timed.pop(record.job_id, None)
        record.avoid_until_ms = None

    # --- attempts -----------------------------------------------------------------------------------------------------

    def _lease(self, record: Record, session_id: SessionId, session: Session) -> ClaimedJob:
        now_ms = self._now_ms()
        record.change(
            status=lifecycle.next_status(record.job_id, record.state.status, JobSignal.CLAIMED),
            attempt=record.state.attempt + 1,
            worker_id=session.worker_id,
            session_id=session_id,
            started_at=now_ms,
            avoid_worker=None,
        )
        record.deadline_ms = now_ms + round(record.spec.timeout_s * 1000)
        session.leases[record.job_id] = record.state.attempt
        return ClaimedJob(spec=record.spec, attempt=record.state.attempt, deadline_ms=record.deadline_ms)

    def _settle_held(
        self, session_id: SessionId, worker_id: WorkerId | None, done: Sequence[Settlement]
    ) -> tuple[JobId, ...]:
        """End attempts of this session; return the ids of those that came too late to count."""
        events = JobEvents()
        refused = []
        for given in done:
            settlement = rules.bounded(given, self._result_bytes_max)
            record = self._records.get(settlement.job_id)
            if record is not None and self._workers.leases(session_id).get(settlement.job_id) == settlement.attempt:
                self._end_attempt(record, settlement, events)
            elif record is None or not record.repeats(session_id, settlement):
                refused.append(settlement.job_id)
                if record is not None:  # else it is only somebody's word
                    events.add("job_refused", settlement.job_id, worker_id, settlement.attempt)
        events.write(self._log, self._now_ms())
        return tuple(refused)

    def _end_attempt(self, record: Record, settlement: Settlement, events: JobEvents) -> None:
        state = record.state
        signal = lifecycle.signal_of(settlement)
        status = lifecycle.next_status(record.job_id, state.status, signal)
        code = settlement.error.code if settlement.error else None
        events.add(rules.EVENT_KINDS[signal], record.job_id, state.worker_id, state.attempt, code)
        record.settled_for = state.session_id
        self._drop_lease(record)
        if status is not JobStatus.PENDING:
            ended_at = self._now_ms()
            record.change(status=status, completed_at=ended_at, result=settlement.result, error=settlement.error)
            return
        record.state = JobState(
            attempt=state.attempt,
            retry_count=state.retry_count + settlement.counts,
            avoid_worker=settlement.avoid_worker,
            next_attempt_at=settlement.retry_at_ms,
            error=settlement.error or state.error,
        )
        if is_due(settlement.retry_at_ms or 0, self._now_ms()):
            self._queue(record)
        else:
            self._timed[record.job_id] = None

    def _return(self, records: Iterable[Record]) -> tuple[JobId, ...]:
        """Put leased jobs back as if the attempt had not been."""
        events = JobEvents()
        returned = list(records)
        for record in returned:
            attempt = record.state.attempt
            back = Settlement(job_id=record.job_id, attempt=attempt, status=JobStatus.PENDING, counts=False)
            self._end_attempt(record, back, events)
        events.write(self._log, self._now_ms())
        return tuple(record.job_id for record in returned)

    def _drop_lease(self, record: Record) -> None:
        session = self._workers.sessions.get(record.state.session_id) if record.state.session_id else None
        if session is not None:
            session.leases.pop(record.job_id, None)

    # --- pages --------------------------------------------------------------------------------------------------------

    def _places(self, name: str) -> list[Place]:
        """Return one of the sets that pages are made of, sorted."""
        if name == JobStatus.PENDING:
            return self._line
        states = [(record.state, record.job_id) for record in self._records.values()]
        if name == DELAYED:
            return sorted((s.next_attempt_at, job_id) for s, job_id in states if s.next_attempt_at is not None)
        return sorted(((s.completed_at or s.started_at or 0), job_id) for s, job_id in states if s.status == name)

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
        return self._clock.now_ms()
