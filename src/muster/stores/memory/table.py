"""All jobs in memory: one record each, one sorted line of those that wait for workers, scans for the rest."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence

from muster.clock import Clock
from muster.domain.job import TERMINAL, ClaimedJob, JobError, JobSpec, JobState, JobStatus, Settlement
from muster.domain.queue import ALL_SERVICES
from muster.ids import JobId, SessionId
from muster.jobs import lifecycle, matching, order
from muster.jobs.lifecycle import JobSignal
from muster.stores import rules
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.customers import Customers
from muster.stores.memory.events import JobEvents
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.ranks import Ranks
from muster.stores.memory.rates import Rates
from muster.stores.memory.records import Record, is_due
from muster.stores.memory.workers import Session, Workers
from muster.stores.memory.workflows import Workflows
from muster.stores.paging import Place


class JobTable:
    """Where each job stands, and how it gets from one place to the next."""

    def __init__(self, clock: Clock, log: MemoryLog, bus: MemoryBus, *, avoid_s: float) -> None:
        self._clock = clock
        self._log = log
        self._bus = bus
        self._avoid_ms = round(avoid_s * 1000)
        self.records: dict[JobId, Record] = {}
        self.line: list[Place] = []  # sorted
        self.timed: dict[JobId, None] = {}  # those that `promote` has to look at
        self.blocked: dict[JobId, Record] = {}  # those that wait for others
        self.paused: set[str] = set()
        self.workers = Workers()
        self.customers = Customers()
        self.ranks = Ranks(self.customers)
        self.rates = Rates()
        self.workflows = Workflows()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    # --- new jobs -----------------------------------------------------------------------------------------------------

    def check(self, specs: Sequence[JobSpec]) -> None:
        """Raise InvalidInput or QueueFull for what cannot be stored."""
        new: dict[JobId, JobSpec] = {}
        for spec in specs:
            if spec.job_id not in self.records and spec.job_id not in new:
                if missing := [name for name in spec.depends_on if name not in self.records and name not in new]:
                    raise rules.no_such_dependency(missing)
                new[spec.job_id] = spec
        for customer, more in Counter(spec.customer_id for spec in new.values()).items():
            if customer is not None:
                waiting = self.customers.figures(customer, self.records.values()).waiting
                if waiting + more > self.customers.waiting_max(customer):
                    raise rules.too_many_wait(customer, waiting)

    def add(self, spec: JobSpec) -> JobId | None:
        """Store a job and put it where it waits; return the job that it fails by, if any."""
        now_ms = self.now_ms()
        due_ms = spec.run_at if spec.run_at is not None and spec.run_at > now_ms else None
        waits = due_ms is not None and spec.workflow_id is None  # then it gets its place when its time has come
        score = order.score(order.order_priority(spec), 0) if waits else self.ranks.next_score(spec)
        state = JobState(next_attempt_at=due_ms)
        record = Record(spec=spec, signature=matching.signature(spec.need), score=score, state=state)
        if spec.deadline_s is not None:
            record.expires_ms = now_ms + round(spec.deadline_s * 1000)
        self.records[spec.job_id] = record
        self.rates.count(spec.service_required, "submitted", now_ms)
        self.workflows.opened(spec)
        return self.settle_in(record)

    def settle_in(self, record: Record) -> JobId | None:
        because = self._wait_for(record)
        if because is None and not record.unmet:
            self._let_go(record)
        return because

    def _wait_for(self, record: Record) -> JobId | None:
        """Note what a job waits for; return what dooms it. A job that is gone ended long ago."""
        unmet: set[JobId] = set()
        for name in record.spec.depends_on:
            other = self.records.get(name)
            if other is None:
                continue
            if other.state.status not in TERMINAL:
                unmet.add(name)
            elif record.spec.on_failure == "fail" and other.state.status is not JobStatus.COMPLETED:
                return name
        self._set_unmet(record, unmet)
        return None

    def _set_unmet(self, record: Record, unmet: set[JobId]) -> None:
        record.unmet = unmet
        record.change(waiting_for=len(unmet))
        if unmet:
            self.blocked[record.job_id] = record
        else:
            self.blocked.pop(record.job_id, None)

    def _let_go(self, record: Record) -> None:
        due_ms = record.state.next_attempt_at
        if due_ms is not None and due_ms > self.now_ms():
            self.timed[record.job_id] = None
        else:
            self.queue(record)

    # --- the line -----------------------------------------------------------------------------------------------------

    def queue(self, record: Record) -> None:
        """Put a job in its place in line; its avoided worker is left out as long as others can run it."""
        now_ms = self.now_ms()
        if order.place_of(record.score) == 0:
            record.score = self.ranks.next_score(record.spec)
        avoid = record.state.avoid_worker
        if avoid and not self.workers.others_can_run(avoid, record.signature, record.spec, now_ms):
            avoid = None
        self.timed.pop(record.job_id, None)
        record.avoid_until_ms = None
        if avoid is not None:
            record.avoid_until_ms = now_ms + self._avoid_ms
            self.timed[record.job_id] = None
        record.change(avoid_worker=avoid, next_attempt_at=None)
        insort(self.line, record.place)
        self.wake([record])

    def wake(self, records: Iterable[Record]) -> None:
        """Wake the classes that wait for any of these jobs."""
        offered = [record for record in records if self._is_offered(record)]
        for class_id in [name for name in self.workers.idle if any(self.can_run(name, record) for record in offered)]:
            self.workers.idle.discard(class_id)
            self._bus.send(rules.WAKE_TOPIC, class_id.encode())

    def wake_all(self) -> None:
        self.wake(self.records[job_id] for _, job_id in self.line)

    def take(self, session: Session, want: int) -> list[Record]:
        taken: list[Record] = []
        running: Counter[str | None] = Counter()
        for _, job_id in self.line:
            if len(taken) >= want:
                break
            record = self.records[job_id]
            customer = record.spec.customer_id
            if (
                record.state.avoid_worker != session.worker_id
                and self.can_run(session.class_id, record)
                and not self.is_paused(record.spec)
                and self.customers.room(customer, self.records.values()) > running[customer]
            ):
                taken.append(record)
                running[customer] += 1
        for record in taken:
            self.leave_line(record)
        return taken

    def can_run(self, class_id: str, record: Record) -> bool:
        return self.workers.can_run(class_id, record.signature, record.spec)

    def is_paused(self, spec: JobSpec) -> bool:
        return spec.service_required in self.paused or ALL_SERVICES in self.paused

    def _is_offered(self, record: Record) -> bool:
        room = self.customers.room(record.spec.customer_id, self.records.values())
        return not self.is_paused(record.spec) and room > 0

    def rank(self, record: Record) -> int | None:
        rank = bisect_left(self.line, record.place)
        return rank if rank < len(self.line) and self.line[rank] == record.place else None

    def leave_line(self, record: Record) -> None:
        """Take a waiting job out of wherever it waits."""
        if (rank := self.rank(record)) is not None:
            del self.line[rank]
        self.timed.pop(record.job_id, None)
        record.avoid_until_ms = None
        record.unmet = set()
        self.blocked.pop(record.job_id, None)

    # --- attempts -----------------------------------------------------------------------------------------------------

    def lease(self, record: Record, session_id: SessionId, session: Session) -> ClaimedJob:
        now_ms = self.now_ms()
        record.change(
            status=lifecycle.next_status(record.job_id, record.state.status, JobSignal.CLAIMED),
            attempt=record.state.attempt + 1,
            worker_id=session.worker_id,
            session_id=session_id,
            started_at=now_ms,
            avoid_worker=None,
        )
        self.ranks.claimed(record.score)
        record.deadline_ms = now_ms + round(record.spec.timeout_s * 1000)
        session.leases[record.job_id] = record.state.attempt
        return ClaimedJob(spec=record.spec, attempt=record.state.attempt, deadline_ms=record.deadline_ms)

    def end_attempt(self, record: Record, settlement: Settlement, events: JobEvents) -> None:
        """Whoever calls tells the dependents of what has ended, and wakes those for whom there is room now."""
        state = record.state
        signal = lifecycle.signal_of(settlement)
        status = lifecycle.next_status(record.job_id, state.status, signal)
        code = settlement.error.code if settlement.error else None
        events.add(rules.EVENT_KINDS[signal], record.job_id, state.worker_id, state.attempt, code)
        record.settled_for = state.session_id
        self.drop_lease(record)
        if status is not JobStatus.PENDING:
            ended_at = self.now_ms()
            record.change(status=status, completed_at=ended_at, result=settlement.result, error=settlement.error)
            what = "completed" if status is JobStatus.COMPLETED else "failed"
            self.rates.count(record.spec.service_required, what, ended_at)
            return
        record.state = JobState(
            attempt=state.attempt,
            retry_count=state.retry_count + settlement.counts,
            avoid_worker=settlement.avoid_worker,
            next_attempt_at=settlement.retry_at_ms,
            error=settlement.error or state.error,
        )
        if is_due(settlement.retry_at_ms or 0, self.now_ms()):
            self.queue(record)
        else:
            self.timed[record.job_id] = None

    def drop_lease(self, record: Record) -> None:
        session = self.workers.sessions.get(record.state.session_id) if record.state.session_id else None
        if session is not None:
            session.leases.pop(record.job_id, None)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def end_unstarted(self, record: Record, signal: JobSignal, error: JobError | None = None) -> None:
        """End a job that does not run."""
        status = lifecycle.next_status(record.job_id, record.state.status, signal)
        self.leave_line(record)
        record.change(status=status, completed_at=self.now_ms(), next_attempt_at=None, avoid_worker=None, waiting_for=0)
        if error is not None:
            record.change(error=error)
        if signal is not JobSignal.CANCELLED:
            self.tell(rules.EVENT_KINDS[signal], record.job_id, code=error.code if error else None)

    def doom(self, record: Record, because: JobId) -> None:
        """Fail a job because of another one."""
        error = rules.dependency_error(because, self.records[because].state.status)
        self.end_unstarted(record, JobSignal.FAILED_FOR_GOOD, error)
        self._close([record])

    def has_ended(self, records: Iterable[Record]) -> None:
        """Tell those who wait for these jobs, and for those that fail by it."""
        ended = [record for record in records if record.state.status in TERMINAL]
        self._close(ended)
        while ended:
            other = ended.pop(0)
            for _, record in sorted(self.blocked.items()):
                if other.job_id not in record.unmet:
                    continue
                if record.spec.on_failure == "fail" and other.state.status is not JobStatus.COMPLETED:
                    self.doom(record, other.job_id)
                    ended.append(record)
                    continue
                self._set_unmet(record, record.unmet - {other.job_id})
                if not record.unmet:
                    self._let_go(record)

    def _close(self, ended: Iterable[Record]) -> None:
        for event in self.workflows.ended(ended, self.now_ms()):
            self._log.add(event)

    def tell(self, kind: str, job_id: JobId, *, code: str | None = None) -> None:
        events = JobEvents()
        events.add(kind, job_id, None, 0, code)
        events.write(self._log, self.now_ms())

    def write(self, events: JobEvents) -> None:
        events.write(self._log, self.now_ms())
