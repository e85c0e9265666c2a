"""A worker's standing at the queue: opened, renewed, and opened anew when it was forgotten."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import structlog

from muster.agent.backoff import Backoff
from muster.agent.jobs.ledger import Key
from muster.clock import Clock, Rng
from muster.domain.capability import Capability
from muster.domain.job import Progress
from muster.errors import MusterError, UpstreamTimeout
from muster.ids import JobId, NodeId, SessionId, WorkerId, new_id
from muster.ports import JobLink
from muster.wire import (
    ClaimReply,
    ClaimRequest,
    CloseSession,
    OpenSession,
    Outcome,
    ProgressReport,
    ProgressReports,
    RenewRequest,
)

log = structlog.get_logger()

_RENEW_FIRST_S = 1.0  # until the control plane has said how often
_RENEW_DEADLINE_S_MIN = 1.0
RESULT_BYTES_MAX = 8 * 1024 * 1024  # what one message carries, whatever the control plane would keep


class Session:
    """Every method that calls raises MusterError; `rest` is the pause that must follow."""

    def __init__(self, node_id: NodeId, worker_id: WorkerId, slots: int, link: JobLink, clock: Clock, rng: Rng) -> None:
        self.session_id = SessionId(new_id("session", clock.now_ms(), rng))
        self.due = True  # to be opened, or opened again
        self.opened = False  # ever
        self.refusal: str | None = None  # why the control plane does not take us
        self.renew_every_s = _RENEW_FIRST_S
        self.result_bytes_max = RESULT_BYTES_MAX
        self._node_id = node_id
        self._worker_id = worker_id
        self._slots = slots
        self._link = link
        self._rng = rng
        self._backoff = Backoff(base_s=0.2, max_s=5.0, jitter=0.5)
        self._failures = 0

    async def open(self, capability: Capability) -> None:
        self.due = False
        message = OpenSession(
            node_id=self._node_id,
            worker_id=self._worker_id,
            session_id=self.session_id,
            capability=capability,
            slots=self._slots,
        )
        try:
            reply = await self._link.open_session(message)
        except MusterError as error:
            self.due = True
            self.refusal = None if error.retriable else error.message
            raise
        self.renew_every_s = reply.renew_every_s
        self.result_bytes_max = min(reply.result_bytes_max or RESULT_BYTES_MAX, RESULT_BYTES_MAX)
        self.opened, self.refusal = True, None
        self._link_works()

    async def claim(self, want: int, done: Sequence[Outcome] = (), wait_s: float = 0.0) -> ClaimReply:
        message = ClaimRequest(
            session_id=self.session_id, worker_id=self._worker_id, want=want, done=tuple(done), wait_s=wait_s
        )
        reply = await self._link.claim(message)
        self._link_works()
        if not reply.session_known:
            self._forgotten()
        return reply

    async def renew(self, held: tuple[Key, ...]) -> list[Key]:
        """Return what is lost of `held`. A renewal that hangs must not cost the lease, so its deadline is short."""
        deadline_s = max(_RENEW_DEADLINE_S_MIN, 2 * self.renew_every_s)
        try:
            async with asyncio.timeout(deadline_s):
                reply = await self._link.renew(
                    RenewRequest(session_id=self.session_id, worker_id=self._worker_id, held=held)
                )
        except TimeoutError:
            raise UpstreamTimeout(f"a renewal was not answered within {deadline_s:g} s") from None
        if not reply.session_known:
            self._forgotten()
        return _lost(held, reply.lost)

    async def report_progress(self, reports: Mapping[Key, Progress]) -> list[Key]:
        """Return what is lost of the reported."""
        message = ProgressReports(
            session_id=self.session_id,
            reports=tuple(
                ProgressReport(job_id=job_id, attempt=attempt, progress=progress)
                for (job_id, attempt), progress in reports.items()
            ),
        )
        reply = await self._link.report_progress(message)
        if not reply.session_known:
            self._forgotten()
        return _lost(reports, reply.lost)

    async def close(self) -> None:
        await self._link.close_session(CloseSession(session_id=self.session_id, worker_id=self._worker_id))

    async def rest(self, error: MusterError, call: str) -> None:
        """Wait after a call that failed, longer each time in a row; the first and the last are told."""
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures, self._rng)
        tell = log.warning if self._failures == 1 else log.debug
        tell(
            "queue_call_failed", worker_id=self._worker_id, call=call, error=error.message, retry_in_s=round(delay_s, 2)
        )
        await asyncio.sleep(delay_s)

    def _link_works(self) -> None:
        if self._failures:
            log.info("queue_reached_again", worker_id=self._worker_id, failures=self._failures)
        self._failures = 0

    def _forgotten(self) -> None:
        if not self.due:
            log.info("session_forgotten", worker_id=self._worker_id, session_id=self.session_id)
        self.due = True


def _lost(asked: Iterable[Key], lost: Sequence[JobId]) -> list[Key]:
    """Pair the lost jobs with the attempts that were asked about: a newer one may run by now."""
    return [key for key in asked if key[0] in lost] if lost else []
