"""A worker of a simulated agent: the protocol of sessions, claims and leases as a real one has to keep it."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, JobError, Progress, encode_result
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, SessionId, worker_id
from muster.sim.findings import Findings
from muster.sim.network import Network
from muster.sim.plane import LEASE_S
from muster.sim.stories import Stories
from muster.sim.timeline import Timeline
from muster.wire import (
    ClaimReply,
    ClaimRequest,
    CloseSession,
    OpenSession,
    Outcome,
    OutcomeKind,
    ProgressReport,
    ProgressReports,
    RenewReply,
    RenewRequest,
    SessionReply,
)

SLOTS_HOLD = "a worker never runs more than its slots"

_IDLE_POLL_MS = 8_000
_RETRY_MS = 2_000
_RENEW_MS = round(LEASE_S * 1000 / 3)


class Surroundings(Struct, frozen=True):
    """What agents and workers share."""

    timeline: Timeline
    network: Network
    stories: Stories
    findings: Findings
    rng: Random


class SimWorker:
    """Lives as long as one boot of its agent; `stop` ends it as a crash would."""

    def __init__(self, around: Surroundings, node_id: NodeId, boot_id: str, index: int, capability: Capability) -> None:
        self._around = around
        self._node_id = node_id
        self.worker_id = worker_id(node_id, index)
        self._index = index
        self._session_id = SessionId(f"{boot_id}-{index}")
        self._capability = capability
        self._slots = 1 + index % 2
        self._running: dict[JobId, int] = {}
        self._done: list[Outcome] = []
        self._claiming = False
        self._polling = False
        self._alive = True
        self.draining = False

    def stop(self) -> None:
        self._alive = False

    def status(self) -> Worker:
        busy = WorkerStatus.BUSY if self._running else WorkerStatus.IDLE
        return Worker(
            worker_id=self.worker_id,
            index=self._index,
            status=busy,
            slots=self._slots,
            session_id=self._session_id,
            connectors=("simulation",),
            current_jobs=tuple(self._running),
        )

    # --- the session -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        message = OpenSession(
            node_id=self._node_id,
            worker_id=self.worker_id,
            session_id=self._session_id,
            capability=self._capability,
            slots=self._slots,
        )
        self._call(lambda plane: plane.open_session(message), self._opened, partial(self._later, _RETRY_MS, self.open))

    def _opened(self, _: SessionReply) -> None:
        self._claim()

    def keep_renewing(self) -> None:
        self._renew()
        self._later(_RENEW_MS, self.keep_renewing)

    def _renew(self) -> None:
        """Say what is held, be it nothing: leases whose grant was lost on the way are found by that alone."""
        held = (*self._running.items(), *((outcome.job_id, outcome.attempt) for outcome in self._done))
        message = RenewRequest(session_id=self._session_id, worker_id=self.worker_id, held=held)
        self._call(lambda plane: plane.renew(message), partial(self._renewed, dict(held)), _nothing)

    def _renewed(self, held: dict[JobId, int], reply: RenewReply) -> None:
        for job_id in reply.lost:
            self._drop(job_id, held[job_id])
        if not reply.session_known:
            self.open()

    def _drop(self, job_id: JobId, attempt: int) -> None:
        """Forget an attempt that no longer counts; a newer one of the same job is another matter."""
        if self._running.get(job_id) == attempt:
            del self._running[job_id]
        self._done = [done for done in self._done if (done.job_id, done.attempt) != (job_id, attempt)]

    def close(self) -> None:
        """Say goodbye: what is done counts, what runs goes back."""
        farewell = ClaimRequest(session_id=self._session_id, worker_id=self.worker_id, want=0, done=tuple(self._done))
        closing = CloseSession(session_id=self._session_id, worker_id=self.worker_id)
        self._call(lambda plane: plane.claim(farewell), _ignore, _nothing)
        self._call(lambda plane: plane.close_session(closing), _ignore, _nothing)
        self.stop()

    # --- claiming ----------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        want = 0 if self.draining else self._slots - len(self._running)
        if self._claiming or not (want or self._done):
            self._poll()
            return
        self._claiming = True
        done = tuple(self._done)
        message = ClaimRequest(session_id=self._session_id, worker_id=self.worker_id, want=want, done=done)
        self._call(lambda plane: plane.claim(message), partial(self._claimed, done), self._claim_failed)

    def _claimed(self, done: tuple[Outcome, ...], reply: ClaimReply) -> None:
        self._claiming = False
        self._done = [outcome for outcome in self._done if outcome not in done]
        for job in reply.jobs:
            self._start(job)
        if not reply.session_known:
            self.open()
        elif self._done:
            self._claim()
        else:
            self._poll()

    def _claim_failed(self) -> None:
        self._claiming = False
        self._later(_RETRY_MS, self._claim)

    def _poll(self) -> None:
        """Look again after a while; one such look is planned at a time."""
        if not self._polling:
            self._polling = True
            self._later(_IDLE_POLL_MS, self._poll_now)

    def _poll_now(self) -> None:
        self._polling = False
        self._claim()

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, job: ClaimedJob) -> None:
        job_id, payload = job.spec.job_id, job.spec.payload
        self._running[job_id] = job.attempt
        if len(self._running) > self._slots:
            told = f"runs {len(self._running)} jobs in {self._slots} slots"
            self._around.findings.broken(SLOTS_HOLD, self.worker_id, told)
        self._around.stories.tell(job_id, f"{self.worker_id} runs attempt {job.attempt}")
        duration_ms = payload["duration_ms"]
        self._later(duration_ms // 2, partial(self._report, job_id, job.attempt))
        self._later(duration_ms, partial(self._finish, job, self._around.rng.random()))

    def _report(self, job_id: JobId, attempt: int) -> None:
        if self._running.get(job_id) != attempt:
            return
        report = ProgressReport(job_id=job_id, attempt=attempt, progress=Progress(fraction=0.5))
        message = ProgressReports(session_id=self._session_id, reports=(report,))
        self._call(lambda plane: plane.report_progress(message), partial(self._reported, attempt), _nothing)

    def _reported(self, attempt: int, reply: RenewReply) -> None:
        for job_id in reply.lost:
            self._drop(job_id, attempt)

    def _finish(self, job: ClaimedJob, luck: float) -> None:
        job_id = job.spec.job_id
        if self._running.get(job_id) != job.attempt:
            return
        del self._running[job_id]
        if luck < job.spec.payload["fail_rate"]:
            error = JobError(
                code="bad_luck", message="it was not to be", retriable=luck < job.spec.payload["retry_rate"]
            )
            outcome = Outcome(job_id=job_id, attempt=job.attempt, kind=OutcomeKind.FAILED, error=error)
        else:
            result = encode_result({"worker": self.worker_id, "attempt": job.attempt})
            outcome = Outcome(job_id=job_id, attempt=job.attempt, kind=OutcomeKind.COMPLETED, result=result)
        self._done.append(outcome)
        self._claim()

    # --- small things ------------------------------------------------------------------------------------------------

    def _call(self, serve: Callable[[Any], Any], answered: Callable[[Any], None], failed: Callable[[], None]) -> None:
        self._around.network.call(self._node_id, serve, self._if_alive(answered), self._if_alive(failed))

    def _later(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._around.timeline.after(delay_ms, self._if_alive(action))

    def _if_alive(self, action: Callable[..., None]) -> Callable[..., None]:
        def act(*arguments: Any) -> None:
            if self._alive:
                action(*arguments)

        return act


def _nothing() -> None:
    """Let it be: the next renewal or claim makes good."""


def _ignore(_: object) -> None:
    """Take no notice of an answer."""
