"""Who follows single jobs: each is told a job's present state whenever it changed, and its end exactly once.

Nothing is queued for a follower: that a job changed is noted, and its state read when he is ready for it. So at most
one note for each of his jobs waits however slow he is, no end can be lost, and a store that is away only delays it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import structlog
from msgspec import Struct

from muster.clock import Clock
from muster.domain.job import ACTIVE, JobStatus, Progress
from muster.errors import MusterError
from muster.ids import JobId
from muster.wire import ProgressReport

log = structlog.get_logger()


class FollowedJob(Protocol):
    @property
    def job_id(self) -> str: ...
    @property
    def status(self) -> JobStatus: ...
    @property
    def attempt(self) -> int: ...
    @property
    def version(self) -> str:
        """Differs whenever the job changed; the same at every control plane."""
        ...

    @property
    def final(self) -> bool: ...


class Jobs(Protocol):
    async def whole_jobs(self, job_ids: Sequence[JobId]) -> Sequence[FollowedJob]:
        """Return those there are, with payload and result."""
        ...


class FollowLimits(Struct, frozen=True, kw_only=True):
    keep_alive_s: float = 15.0
    recheck_s: float = 60.0  # what was lost without anybody's notice is found after so long
    jobs_per_look: int = 32  # each may have a payload and a result of a megabyte
    retry_s: float = 0.5


class Change(Struct, frozen=True, kw_only=True):
    """What is new of one job: its state, or only its progress, or (neither) that it is not there any more."""

    job_id: JobId
    job: FollowedJob | None = None
    progress: Progress | None = None

    @property
    def final(self) -> bool:
        return self.job.final if self.job is not None else self.progress is None


class _Told(Struct):
    """The state a follower knows of; `version` is empty where he knows of none."""

    version: str = ""
    attempt: int = 0
    runs: bool = True


class Follower:
    def __init__(self, index: dict[JobId, set["Follower"]]) -> None:
        self._index = index
        self._told: dict[JobId, _Told] = {}
        self._noted: dict[JobId, None] = {}
        self._progress: dict[JobId, ProgressReport] = {}
        self._ready = asyncio.Event()
        self.closed = False

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._told

    def follow(self, job_id: JobId, version: str | None = None) -> None:
        """Be told the job's state, unless it is still at the `version` that was heard last, and all that follows."""
        self._told[job_id] = _Told(version=version or "")
        self._index.setdefault(job_id, set()).add(self)
        self.note(job_id)

    def leave(self, job_id: JobId) -> None:
        self._told.pop(job_id, None)
        self._noted.pop(job_id, None)
        self._progress.pop(job_id, None)
        if (others := self._index.get(job_id)) is not None:
            others.discard(self)
            if not others:
                del self._index[job_id]

    def leave_all(self) -> None:
        for job_id in list(self._told):
            self.leave(job_id)

    def note(self, job_id: JobId) -> None:
        self._noted[job_id] = None
        self._ready.set()

    def note_all(self) -> None:
        for job_id in self._told:
            self.note(job_id)

    def note_progress(self, report: ProgressReport) -> None:
        self._progress[report.job_id] = report
        self._ready.set()

    def close(self) -> None:
        self.closed = True
        self._ready.set()

    async def changed(self, timeout_s: float) -> bool:
        """Wait until something is noted, at most so long; at the end of all things it is False."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return not self.closed

    def take_touched(self) -> bool:
        """Forget what is noted and say whether there was something: for those who look for themselves."""
        touched = bool(self._noted or self._progress)
        self._noted.clear()
        self._progress.clear()
        if not self.closed:
            self._ready.clear()
        return touched

    async def look(self, jobs: Jobs, limit: int) -> list[Change]:
        """Return what is new, in the order in which it was noted. When the store is away the notes stay."""
        wanted = list(islice(self._noted, limit))
        for job_id in wanted:
            del self._noted[job_id]
        try:
            found = {JobId(job.job_id): job for job in await jobs.whole_jobs(wanted)} if wanted else {}
        except BaseException:
            self._noted = dict.fromkeys(wanted) | self._noted
            raise
        changes = [change for job_id in wanted if (change := self._change(job_id, found.get(job_id))) is not None]
        changes += self._moved()
        if not self._noted and not self.closed:
            self._ready.clear()
        return changes

    def _change(self, job_id: JobId, job: FollowedJob | None) -> Change | None:
        told = self._told.get(job_id)
        if told is None:  # left meanwhile
            return None
        if job is None:
            self.leave(job_id)
            return Change(job_id=job_id)
        if job.final:
            self.leave(job_id)
        else:
            self._told[job_id] = _Told(version=job.version, attempt=job.attempt, runs=job.status in ACTIVE)
        return Change(job_id=job_id, job=job) if job.version != told.version else None

    def _moved(self) -> Iterator[Change]:
        """Progress goes only with a state that is not about to be told anew, and never with an older attempt."""
        waiting, self._progress = self._progress, {}
        for job_id, report in waiting.items():
            told = self._told.get(job_id)
            if job_id in self._noted:
                self._progress[job_id] = report
            elif told is not None and (report.attempt > told.attempt or (told.runs and report.attempt == told.attempt)):
                yield Change(job_id=job_id, progress=report.progress)


class Followers:
    """All of them, and the way from an event to those whom it concerns."""

    def __init__(self, jobs: Jobs, clock: Clock, limits: FollowLimits) -> None:
        self._jobs = jobs
        self._clock = clock
        self._limits = limits
        self._all: set[Follower] = set()
        self._index: dict[JobId, set[Follower]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def keep_alive_s(self) -> float:
        return self._limits.keep_alive_s

    @contextmanager
    def follower(self) -> Iterator[Follower]:
        follower = Follower(self._index)
        self._all.add(follower)
        try:
            yield follower
        finally:
            follower.leave_all()
            self._all.discard(follower)

    def follows(self, job_id: JobId) -> bool:
        return job_id in self._index

    def note(self, job_ids: Iterable[str]) -> None:
        if self._index:
            for job_id in map(JobId, job_ids):
                for follower in self._index.get(job_id, ()):
                    follower.note(job_id)

    def note_all(self) -> None:
        """Let all look for themselves: events may have been missed."""
        for follower in self._all:
            follower.note_all()

    def note_progress(self, report: ProgressReport) -> None:
        for follower in self._index.get(report.job_id, ()):
            follower.note_progress(report)

    def close(self) -> None:
        for follower in self._all:
            follower.close()

    async def changes(self, follower: Follower) -> AsyncIterator[list[Change]]:
        """Yield what is new of his jobs, and an empty list after a while of silence; ends when it is closed."""
        rechecked_s = self._clock.monotonic_s()
        while True:
            changed = await follower.changed(self._limits.keep_alive_s)
            if follower.closed:
                return
            if self._clock.monotonic_s() - rechecked_s > self._limits.recheck_s:
                rechecked_s = self._clock.monotonic_s()
                follower.note_all()
            try:
                changes = await follower.look(self._jobs, self._limits.jobs_per_look)
            except MusterError as error:
                log.warning("followed_jobs_not_read", error=error.message)
                await asyncio.sleep(self._limits.retry_s)
                changes, changed = [], False  # silence, as far as the reader can tell
            if changes or not changed:
                yield changes
