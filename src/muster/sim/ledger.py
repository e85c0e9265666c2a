"""What must be true of jobs, kept by somebody who sees every call to the store and trusts none of its answers.

The ledger keeps its own account: who holds which lease until when, who stands where in line. An answer that does not
fit the account breaks a rule; a fitting one changes it.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.event import LoggedEvent
from muster.domain.job import ACTIVE, TERMINAL, Job, JobSpec, JobStatus, Lease, Settlement
from muster.ids import JobId, SessionId, WorkerId
from muster.jobs import matching, order
from muster.ports import Claimed, Renewed, Submitted
from muster.sim.findings import Findings
from muster.sim.stories import Stories
from muster.sim.timeline import Timeline
from muster.wire import ProgressReport

Jobs = Mapping[JobId, Job | None]

_TERMINAL_KINDS = frozenset({"job_completed", "job_failed", "job_timeout", "job_cancelled"})

ONE_END = "a job ends once"
ONE_LEASE = "a job has one lease at a time"
NOTHING_LOST = "no job is lost"
FENCE = "only the holder of a lease ends an attempt"
LEASE_HOLDS = "a lease holds until its time is over"
ORDER = "the best waiting job goes first"
FIT = "a worker gets what it asked for and can run"


class _Entry(Struct):
    """A job as it should stand."""

    spec: JobSpec
    score: int
    signature: str
    job: Job
    deadline_ms: int = 0
    revived: int = 0
    ended_by: tuple[SessionId, int] | None = None

    def held_by(self, session_id: SessionId, attempt: int) -> bool:
        state = self.job.state
        return state.status in ACTIVE and state.session_id == session_id and state.attempt == attempt


class _Session(Struct):
    worker_id: WorkerId
    capability: Capability
    class_id: str
    ends_ms: int


class Ledger:
    def __init__(self, timeline: Timeline, stories: Stories, findings: Findings) -> None:
        self._timeline = timeline
        self._stories = stories
        self._findings = findings
        self._entries: dict[JobId, _Entry] = {}
        self._waiting: dict[JobId, _Entry] = {}
        self._sessions: dict[SessionId, _Session] = {}
        self._can: dict[tuple[str, str], bool] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    def job_ids(self) -> list[JobId]:
        return list(self._entries)

    def with_status(self, statuses: Iterable[JobStatus]) -> list[JobId]:
        wanted = frozenset(statuses)
        return [job_id for job_id, entry in self._entries.items() if entry.job.state.status in wanted]

    def open_jobs(self) -> int:
        return sum(entry.job.state.status not in TERMINAL for entry in self._entries.values())

    def set_back(self) -> list[JobId]:
        """Return the waiting jobs that time alone will change: retries, and those that avoid a worker."""
        return [
            job_id
            for job_id, entry in self._waiting.items()
            if entry.job.state.next_attempt_at is not None or entry.job.state.avoid_worker is not None
        ]

    def outcomes(self) -> dict[str, int]:
        counts = dict.fromkeys((str(status) for status in JobStatus), 0)
        for entry in self._entries.values():
            counts[entry.job.state.status] += 1
        return {status: count for status, count in counts.items() if count}

    def attempts(self) -> int:
        return sum(entry.job.state.attempt for entry in self._entries.values())

    # --- what the store answered -------------------------------------------------------------------------------------

    def submitted(self, specs: Sequence[JobSpec], answers: Sequence[Submitted], jobs: Jobs) -> None:
        for spec, answer in zip(specs, answers, strict=True):
            known = spec.job_id in self._entries
            if answer.created is known:
                told = "was made twice" if known else "is said to be known before it was submitted"
                self._findings.broken(ONE_END, spec.job_id, told)
            job = jobs[spec.job_id]
            if job is None:
                self._findings.broken(NOTHING_LOST, spec.job_id, "is not there right after submit")
            elif not known:
                score = order.score(order.order_priority(spec), len(self._entries) + 1)
                self._entries[spec.job_id] = _Entry(spec, score, matching.signature(spec.need), job)
                self._set(spec.job_id, job, "submitted")

    def opened(self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float) -> None:
        ends_ms = self._timeline.now_ms() + round(lease_s * 1000)
        self._sessions[session_id] = _Session(worker_id, capability, matching.class_id(capability), ends_ms)

    def claimed(
        self,
        session_id: SessionId,
        want: int,
        done: Sequence[Settlement],
        answer: Claimed,
        jobs: Jobs,
        lease_s: float,
    ) -> None:
        settled = [
            settlement.job_id
            for settlement in done
            if self._outcome(session_id, settlement, refused=settlement.job_id in answer.refused)
        ]
        taken = {job.spec.job_id for job in answer.jobs}
        for job_id in settled:
            if job_id in taken:
                continue
            self._set(job_id, jobs[job_id], f"attempt ended by {session_id}")
        if answer.session_known:
            self._renewed_until(session_id, lease_s)
            self._check_order(session_id, want, settled, taken)
        if len(answer.jobs) > want:
            self._findings.broken(FIT, session_id, f"asked for {want} jobs and got {len(answer.jobs)}")
        for leased in answer.jobs:
            job_id = leased.spec.job_id
            entry = self._entries[job_id]
            state = entry.job.state
            if job_id not in settled and state.status is not JobStatus.PENDING:
                self._findings.broken(
                    ONE_LEASE, job_id, f"was {state.status} (attempt {state.attempt}) when {session_id} got it"
                )
            if leased.attempt != state.attempt + 1:
                self._findings.broken(FENCE, job_id, f"got token {leased.attempt} after {state.attempt}")
            if not self._can_run(session_id, entry):
                self._findings.broken(FIT, job_id, f"went to {session_id}, which cannot run it")
            entry.deadline_ms = leased.deadline_ms
            self._set(job_id, jobs[job_id], f"leased to {session_id}, attempt {leased.attempt}")

    def settled(self, settlements: Sequence[Settlement], accepted: Sequence[bool], jobs: Jobs) -> None:
        for settlement, counted in zip(settlements, accepted, strict=True):
            entry = self._entries[settlement.job_id]
            state = entry.job.state
            running = state.status in ACTIVE and state.attempt == settlement.attempt
            if running is not counted:
                told = f"attempt {settlement.attempt} of {state.attempt} ({state.status}), counted: {counted}"
                self._findings.broken(FENCE, settlement.job_id, told)
            if counted and state.session_id is not None:
                entry.ended_by = (state.session_id, state.attempt)
            self._set(settlement.job_id, jobs[settlement.job_id], f"settled by the sweep: {settlement.status}")

    def renewed(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], answer: Renewed, jobs: Jobs, lease_s: float
    ) -> None:
        for job_id, attempt in held:
            self._check_lost(session_id, job_id, attempt, lost=job_id in answer.lost)
        for job_id in answer.returned:
            self._set(job_id, jobs[job_id], f"given back unheld by {session_id}")
        if answer.session_known:
            self._renewed_until(session_id, lease_s)

    def progressed(
        self, session_id: SessionId, reports: Sequence[ProgressReport], lost: Sequence[JobId], jobs: Jobs
    ) -> None:
        for report in reports:
            self._check_lost(session_id, report.job_id, report.attempt, lost=report.job_id in lost)
            self._set(report.job_id, jobs[report.job_id], f"progress from {session_id}")

    def closed(self, session_id: SessionId, returned: Sequence[JobId], jobs: Jobs) -> None:
        for job_id in returned:
            self._set(job_id, jobs[job_id], f"given back by {session_id}")
        for job_id, entry in self._entries.items():
            if entry.held_by(session_id, entry.job.state.attempt):
                self._findings.broken(NOTHING_LOST, job_id, f"stays leased to {session_id}, which closed")

    def overdue(self, leases: Sequence[Lease]) -> None:
        now_ms = self._timeline.now_ms()
        for lease in leases:
            job_id = lease.spec.job_id
            entry = self._entries[job_id]
            session = self._sessions.get(lease.session_id)
            ends_ms = entry.deadline_ms if lease.expired == "deadline" else session.ends_ms if session else 0
            if ends_ms > now_ms:
                self._findings.broken(LEASE_HOLDS, job_id, f"is overdue ({lease.expired}) {ends_ms - now_ms} ms early")
            if not entry.held_by(lease.session_id, lease.attempt):
                self._findings.broken(LEASE_HOLDS, job_id, f"is overdue for {lease.session_id}, which does not hold it")

    def looked(self, jobs: Jobs, why: str, *, revived: bool = False) -> None:
        for job_id, job in jobs.items():
            self._entries[job_id].revived += revived
            self._set(job_id, job, why, revived=revived)

    # --- at the end --------------------------------------------------------------------------------------------------

    def audit(self, jobs: Jobs, log: Iterable[LoggedEvent]) -> None:
        """Hold the store's whole content and its log against the account."""
        ends: dict[JobId, int] = dict.fromkeys(self._entries, 0)
        claims = dict(ends)
        for entry in log:
            if entry.event.kind.startswith("job_"):
                for name in entry.event.ids or (entry.event.key,):
                    ends[JobId(name)] += entry.event.kind in _TERMINAL_KINDS
                    claims[JobId(name)] += entry.event.kind == "job_claimed"
        for job_id, known in self._entries.items():
            job = jobs[job_id]
            self._set(job_id, job, "looked at after all")
            if job is None:
                continue
            state = job.state
            if state.status not in TERMINAL:
                self._findings.broken(NOTHING_LOST, job_id, f"is still {state.status} after all")
            if state.status is JobStatus.COMPLETED:
                self._check_result(job)
            if ends[job_id] != 1 + known.revived:
                self._findings.broken(ONE_END, job_id, f"has {ends[job_id]} ends in the log, {known.revived} revivals")
            if claims[job_id] != state.attempt:
                self._findings.broken(ONE_LEASE, job_id, f"has {claims[job_id]} claims in the log, not {state.attempt}")

    def _check_result(self, job: Job) -> None:
        state = job.state
        expected = {"worker": state.worker_id, "attempt": state.attempt}
        found = msgspec.json.decode(state.result) if isinstance(state.result, msgspec.Raw) else None
        if found != expected:
            self._findings.broken(FENCE, job.job_id, f"has the result {found}, its last attempt made {expected}")

    # --- the account -------------------------------------------------------------------------------------------------

    def _set(self, job_id: JobId, job: Job | None, why: str, *, revived: bool = False) -> None:
        """Take over how a job stands now, unless that cannot be."""
        entry = self._entries[job_id]
        if job is None:
            self._findings.broken(NOTHING_LOST, job_id, f"is gone: {why}")
            return
        before, after = entry.job.state, job.state
        if after != before or why == "submitted":
            self._stories.tell(job_id, f"{after.status}, attempt {after.attempt}: {why}")
        if before.status in TERMINAL and after != before and not revived:
            self._findings.broken(ONE_END, job_id, f"was {before.status} and became {after.status}: {why}")
        if after.attempt < before.attempt:
            self._findings.broken(FENCE, job_id, f"went from token {before.attempt} back to {after.attempt}")
        entry.job = job
        if after.status is JobStatus.PENDING:
            self._waiting[job_id] = entry
        else:
            self._waiting.pop(job_id, None)

    def _outcome(self, session_id: SessionId, settlement: Settlement, *, refused: bool) -> bool:
        """Judge what the store made of an outcome; tell whether it ended the attempt."""
        entry = self._entries[settlement.job_id]
        held = entry.held_by(session_id, settlement.attempt)
        if held and refused:
            self._findings.broken(FENCE, settlement.job_id, f"its holder {session_id} was refused")
        elif not held and not refused and entry.ended_by != (session_id, settlement.attempt):
            told = f"attempt {settlement.attempt} of {session_id} counted, which did not hold it"
            self._findings.broken(FENCE, settlement.job_id, told)
        if refused:
            self._stories.tell(settlement.job_id, f"late outcome of {session_id} refused")
            return False
        entry.ended_by = (session_id, settlement.attempt)
        return held

    def _check_lost(self, session_id: SessionId, job_id: JobId, attempt: int, *, lost: bool) -> None:
        held = self._entries[job_id].held_by(session_id, attempt)
        if held is lost:
            told = "told lost while it holds it" if held else "told nothing though it lost it"
            self._findings.broken(LEASE_HOLDS, job_id, f"{session_id} (attempt {attempt}) was {told}")

    def _renewed_until(self, session_id: SessionId, lease_s: float) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.ends_ms = self._timeline.now_ms() + round(lease_s * 1000)

    def _can_run(self, session_id: SessionId, entry: _Entry) -> bool:
        session = self._sessions[session_id]
        pair = (session.class_id, entry.signature)
        verdict = self._can.get(pair)
        if verdict is None:
            verdict = self._can[pair] = not matching.match(entry.spec.need, session.capability)
        return verdict

    def _check_order(self, session_id: SessionId, want: int, settled: Sequence[JobId], taken: set[JobId]) -> None:
        """Nobody who was in line before and better may be left behind; no worker goes without while one fits."""
        worker_id = self._sessions[session_id].worker_id
        worst = max((self._entries[job_id].score for job_id in taken if job_id not in settled), default=-1)
        full = len(taken) >= want
        for job_id, entry in self._waiting.items():
            if job_id in taken or job_id in settled or (full and entry.score > worst):
                continue
            state = entry.job.state
            if state.next_attempt_at is None and state.avoid_worker != worker_id and self._can_run(session_id, entry):
                told = "with a slot free" if not full else "for a lesser job"
                self._findings.broken(ORDER, job_id, f"was left waiting by {session_id} {told}")
                return
