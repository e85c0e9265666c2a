"""What those who wait are told, kept until they take it: for one job the newest state, for many each one's end."""

import asyncio
from collections import deque

from muster.client.jobs import Job
from muster.errors import MusterError


class Newest:
    """A Listener for one job: who is slow gets how it is now, and not how it came to it."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._error: MusterError | None = None
        self._ready = asyncio.Event()

    def told(self, job: Job) -> None:
        self._job = job
        self._ready.set()

    def failed(self, _: str, error: MusterError) -> None:
        self._error = error
        self._ready.set()

    async def next(self) -> Job:
        await self._ready.wait()
        self._ready.clear()
        if self._error is not None:
            raise self._error
        assert self._job is not None  # noqa: S101  # one of both made it ready
        return self._job


class Ends:
    """A Listener for many jobs: as many ends wait here as there are jobs that are followed."""

    def __init__(self) -> None:
        self._ended: deque[Job | MusterError] = deque()
        self._ready = asyncio.Event()
        self.last: dict[str, Job] = {}

    def told(self, job: Job) -> None:
        if job.done:
            self.last.pop(job.job_id, None)
            self._ended.append(job)
            self._ready.set()
        else:
            self.last[job.job_id] = job

    def failed(self, _: str, error: MusterError) -> None:
        self._ended.append(error)
        self._ready.set()

    async def next(self) -> Job:
        """Return the next that ended; raise what keeps one from being followed."""
        while not self._ended:
            self._ready.clear()
            await self._ready.wait()
        found = self._ended.popleft()
        if isinstance(found, MusterError):
            raise found
        return found
