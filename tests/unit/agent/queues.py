"""A queue with sessions, leases and fencing, small enough to see through, and links to it that fail."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, JobSpec
from muster.errors import StoreUnavailable, UpstreamFailed
from muster.ids import JobId, SessionId
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
    decode,
    encode,
)
from tests.unit.agent.virtual_time import time_passes

T = TypeVar("T")


def spec(job_id: str, service: str = "work", payload: Any = None, **more: Any) -> JobSpec:
    return JobSpec(job_id=JobId(job_id), service_required=service, payload=payload, **more)


class FakeQueue:
    """A JobLink that keeps count of everything."""

    def __init__(
        self,
        specs: Iterable[JobSpec] = (),
        *,
        renew_every_s: float = 1.0,
        grace_s: float = 2.0,
        result_bytes_max: int | None = None,
    ) -> None:
        self.renew_every_s = renew_every_s
        self.grace_s = grace_s
        self.result_bytes_max = result_bytes_max
        self.line = deque(specs)
        self.capabilities: list[Capability] = []
        self.sessions: set[SessionId] = set()
        self.closed: list[SessionId] = []
        self.attempts: Counter[JobId] = Counter()
        self.leases: dict[JobId, tuple[ClaimedJob, SessionId, float]] = {}
        self.settled: list[Outcome] = []
        self.refused: list[Outcome] = []
        self.progress: list[ProgressReport] = []
        self.claims: list[ClaimRequest] = []
        self.overfull = 0  # send so many jobs more than were asked for
        self._more = asyncio.Event()

    def ended(self, kind: OutcomeKind = OutcomeKind.COMPLETED) -> list[JobId]:
        return [outcome.job_id for outcome in self.settled if outcome.kind is kind]

    def add(self, *specs: JobSpec) -> None:
        self.line.extend(specs)
        self._more.set()

    def lose(self, job_id: str, *, again: bool = True) -> None:
        """End a lease from outside, as a cancel or a sweep does."""
        job, *_ = self.leases.pop(JobId(job_id))
        if again:
            self.add(job.spec)

    def forget_sessions(self) -> None:
        self.sessions.clear()
        for job_id in list(self.leases):
            self.lose(job_id)

    async def open_session(self, message: OpenSession) -> SessionReply:
        self.sessions.add(message.session_id)
        self.capabilities.append(message.capability)
        return SessionReply(
            lease_s=self.renew_every_s * 6, renew_every_s=self.renew_every_s, result_bytes_max=self.result_bytes_max
        )

    async def claim(self, message: ClaimRequest) -> ClaimReply:
        self.claims.append(message)
        refused = [outcome.job_id for outcome in message.done if not self._settle(message.session_id, outcome)]
        if message.session_id not in self.sessions:
            return ClaimReply(refused=tuple(refused), session_known=False)
        jobs = self._take(message)
        deadline = asyncio.get_running_loop().time() + message.wait_s
        while not jobs and message.want and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), left)
            except TimeoutError:
                break
            jobs = self._take(message)
        return ClaimReply(jobs=tuple(jobs), refused=tuple(refused), session_known=message.session_id in self.sessions)

    async def renew(self, message: RenewRequest) -> RenewReply:
        if message.session_id not in self.sessions:
            return RenewReply(lost=tuple(job_id for job_id, _ in message.held), session_known=False)
        for job_id, (job, session_id, since) in list(self.leases.items()):
            old = asyncio.get_running_loop().time() - since > self.grace_s
            if session_id == message.session_id and old and (job_id, job.attempt) not in message.held:
                self.lose(job_id)
        return RenewReply(lost=tuple(job_id for job_id, attempt in message.held if not self._valid(job_id, attempt)))

    async def report_progress(self, message: ProgressReports) -> RenewReply:
        self.progress += message.reports
        lost = (report.job_id for report in message.reports if not self._valid(report.job_id, report.attempt))
        return RenewReply(lost=tuple(lost))

    async def close_session(self, message: CloseSession) -> None:
        self.closed.append(message.session_id)
        self.sessions.discard(message.session_id)
        for job_id, (_, session_id, _) in list(self.leases.items()):
            if session_id == message.session_id:
                self.lose(job_id)

    def _valid(self, job_id: JobId, attempt: int) -> bool:
        return job_id in self.leases and self.leases[job_id][0].attempt == attempt

    def _take(self, message: ClaimRequest) -> list[ClaimedJob]:
        if message.session_id not in self.sessions:
            return []
        jobs: list[ClaimedJob] = []
        while self.line and message.want and len(jobs) < message.want + self.overfull:
            given = self.line.popleft()
            self.attempts[given.job_id] += 1
            job = ClaimedJob(spec=given, attempt=self.attempts[given.job_id], deadline_ms=0)
            self.leases[given.job_id] = (job, message.session_id, asyncio.get_running_loop().time())
            jobs.append(job)
        return jobs

    def _settle(self, session_id: SessionId, outcome: Outcome) -> bool:
        if outcome in self.settled:
            return True  # a repeat
        if not self._valid(outcome.job_id, outcome.attempt) or self.leases[outcome.job_id][1] != session_id:
            self.refused.append(outcome)
            return False
        job, *_ = self.leases.pop(outcome.job_id)
        self.settled.append(outcome)
        if outcome.kind is OutcomeKind.RETURNED:
            self.add(job.spec)
        return True


class WireLink:
    """A JobLink that hands on over the codec, and does what `trouble` says before and after each call."""

    def __init__(self, queue: Any, trouble: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._queue = queue
        self._trouble = trouble or self._none
        self.calls: list[str] = []

    async def _none(self, _: str) -> None:
        return None

    async def _call(self, name: str, message: Any, kind: type[T]) -> T:
        self.calls.append(name)
        await self._trouble(name)
        reply = await getattr(self._queue, name)(decode(encode(message), type(message)))
        await self._trouble(name)
        return decode(encode(reply), kind)

    async def open_session(self, message: OpenSession) -> SessionReply:
        return await self._call("open_session", message, SessionReply)

    async def claim(self, message: ClaimRequest) -> ClaimReply:
        return await self._call("claim", message, ClaimReply)

    async def renew(self, message: RenewRequest) -> RenewReply:
        return await self._call("renew", message, RenewReply)

    async def report_progress(self, message: ProgressReports) -> RenewReply:
        return await self._call("report_progress", message, RenewReply)

    async def close_session(self, message: CloseSession) -> None:
        await self._call("close_session", message, type(None))


class Trouble:
    """Calls take their time, and some fail: on the way there, or on the way back, when the work is done."""

    def __init__(self, seed: int, share: float, slow_s: float = 0.2) -> None:
        self._rng = random.Random(seed)
        self._share = share
        self._slow_s = slow_s
        self.over = False

    async def __call__(self, _: str) -> None:
        await time_passes(self._rng.random() * self._slow_s)
        if not self.over and self._rng.random() < self._share:
            raise self._rng.choice([UpstreamFailed("cut"), StoreUnavailable("the store is away")])
