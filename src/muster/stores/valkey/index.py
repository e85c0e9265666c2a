from collections.abc import Sequence
from typing import Any

from muster.domain.job import Job, JobStatus, Need
from muster.errors import JobNotFound
from muster.ids import JobId
from muster.jobs import lifecycle, matching
from muster.jobs.lifecycle import JobSignal
from muster.ports import JobPage
from muster.stores.paging import BLOCKED, DELAYED, Place, lanes_of, read_page
from muster.stores.valkey.rows import job_of, needs_of
from muster.stores.valkey.server import Server

_JOBS_PER_CALL = 100  # results can be large


class ValkeyIndex:
    """A JobIndex."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def get(self, job_ids: Sequence[JobId]) -> list[Job | None]:
        return await self._read(job_ids, results=True)

    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        lanes = lanes_of(status, *await self._split(status))
        job_ids, next_cursor = await read_page(lanes, cursor, limit, self._fetch)
        sizes = await self._server.run("counts", *(_set(name) for lane in lanes for name in lane.sets))
        jobs = [job for job in await self._read(job_ids, results=False) if job is not None]
        return JobPage(jobs=tuple(jobs), total=sum(sizes), next_cursor=next_cursor)

    async def counts(self) -> dict[JobStatus, int]:
        statuses = [status for status in JobStatus if status is not JobStatus.UNWORKABLE]
        *sizes, delayed, blocked = await self._server.run("counts", *map(_set, (*statuses, DELAYED, BLOCKED)))
        counts = dict(zip(statuses, sizes, strict=True))
        stuck, _ = await self._server.run("unworkable")
        counts[JobStatus.UNWORKABLE] = sum(stuck[1::2])
        counts[JobStatus.PENDING] = max(0, counts[JobStatus.PENDING] - sum(stuck[1::2])) + delayed + blocked
        return counts

    async def position(self, job_id: JobId) -> int | None:
        rank: int | None = await self._server.execute("ZRANK", self._server.key(JobStatus.PENDING), job_id)
        return rank

    async def waiting(self, need: Need) -> int:
        return int(await self._server.run("waiting", matching.signature(need)))

    async def cancel(self, job_id: JobId) -> Job:
        return await self._step(job_id, "cancel", JobSignal.CANCELLED)

    async def revive(self, job_id: JobId) -> Job:
        (job,) = await self._read([job_id], results=False)
        return await self._step(job_id, "revive", JobSignal.REVIVED, "" if job is None else needs_of(job.spec))

    async def _split(self, status: JobStatus | None) -> tuple[list[str], list[str]]:
        """Return the sets of jobs that nobody can run, and those of all others in line."""
        if status not in (JobStatus.PENDING, JobStatus.UNWORKABLE):
            return [], []
        stuck, served = await self._server.run("unworkable")
        return [f"p:{name.decode()}" for name in stuck[::2]], [f"p:{name.decode()}" for name in served]

    async def _step(self, job_id: JobId, script: str, signal: JobSignal, *args: Any) -> Job:
        before: bytes | None = await self._server.run(script, job_id, *args)
        if before is not None:
            lifecycle.next_status(job_id, JobStatus(before.decode()), signal)
            (job,) = await self._read([job_id], results=True)
            if job is not None:
                return job
        raise JobNotFound(f"no job {job_id!r}: it never was, or it ended long ago", field="job_id")

    async def _read(self, job_ids: Sequence[JobId], *, results: bool) -> list[Job | None]:
        jobs: list[Job | None] = []
        for start in range(0, len(job_ids), _JOBS_PER_CALL):
            rows = await self._server.run("get", int(results), *job_ids[start : start + _JOBS_PER_CALL])
            jobs += [None if row is None else job_of(row) for row in rows]
        return jobs

    async def _fetch(self, name: str, after: Place | None, limit: int, *, newest_first: bool) -> list[Place]:
        flat = await self._server.run("range", _set(name), int(newest_first), limit, *(after or ()))
        return [(int(score), JobId(job_id.decode())) for job_id, score in zip(flat[::2], flat[1::2], strict=True)]


def _set(name: str) -> str:
    """Return the key of one of the sets that pages are made of."""
    return name if name in (JobStatus.PENDING, DELAYED, BLOCKED) or name.startswith("p:") else f"in:{name}"
