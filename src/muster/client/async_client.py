"""Jobs from asyncio: submit, wait, stream, map over many, cancel."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote

import msgspec

from muster.client.connection import Connection
from muster.client.errors import JobFailed
from muster.client.following import Following
from muster.client.jobs import Job, JobOptions, NewJob, job_of
from muster.client.mapping import Mapping, mapping, next_step, take, too_long
from muster.client.waiting import Ends, Newest
from muster.domain.job import JobStatus
from muster.errors import InvalidTransition, PayloadTooLarge
from muster.ids import new_id
from muster.system import system_rng

WAIT_S = 3600.0
IN_FLIGHT = 100
TIMEOUT_S = 30.0
GIVE_UP_AFTER_S = 60.0
_BATCH = 500
_BATCH_BYTES = 4_194_304
PAGE = 100


class AsyncClient:
    """A control plane, or several of the same fleet (`url`: a list, or with commas), and the jobs there.

    Without `url`, `token` and `ca_file` it takes MUSTER_CONTROL_PLANE, MUSTER_TOKEN and MUSTER_CA_FILE, else the
    control plane on this machine. A request may take `timeout_s`; one that cannot be answered now is tried again for
    `give_up_after_s`. It belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        correlation_id: str | None = None,
    ) -> None:
        self._connection = Connection(
            url,
            token=token,
            ca_file=ca_file,
            tls=tls,
            timeout_s=timeout_s,
            give_up_after_s=give_up_after_s,
            correlation_id=correlation_id,
        )
        self._following = Following(self._connection)
        self._rng = system_rng()

    @property
    def url(self) -> str:
        """The control plane that is asked at present."""
        return self._connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections; whoever still waits is told Unreachable. Jobs go on."""
        await self._following.close()
        await self._connection.close()

    # --- giving jobs --------------------------------------------------------------------------------------------------

    async def submit(self, service: str, payload: Any = None, **options: Unpack[JobOptions]) -> Job:
        """Submit a job and return how it stands.

        It gets its id here unless one is given (`job_id`), or a key that stands for one (`idempotency_key`), so a
        request that is repeated because its answer was lost makes no second job.
        """
        answer = await self._connection.request("POST", "/api/jobs", body=self._body(service, payload, options))
        return job_of(answer["job"])

    async def submit_many(self, jobs: Iterable[NewJob]) -> list[str]:
        """Submit jobs, some hundreds with each request, and return their ids in the same order."""
        bodies = [self._body(job.service, job.payload, job.options) for job in jobs]
        job_ids: list[str] = []
        most = _BATCH
        while bodies:
            batch = bodies[: _within(bodies[:most])]
            try:
                answer = await self._connection.request("POST", "/api/jobs/batch", body={"jobs": batch})
            except PayloadTooLarge:
                if len(batch) == 1:
                    raise
                most = len(batch) // 2  # this control plane takes less at once
                continue
            job_ids += [job["job_id"] for job in answer["jobs"]]
            del bodies[: len(batch)]
        return job_ids

    def _body(self, service: str, payload: Any, options: JobOptions) -> dict[str, Any]:
        own_id = {"job_id": new_id("job", time.time_ns() // 1_000_000, self._rng)}
        if "idempotency_key" in options:
            own_id = {}  # the key says which job it is
        return own_id | {"service_required": service, "payload": payload} | dict(options)

    # --- looking and acting -------------------------------------------------------------------------------------------

    async def get(self, job_id: str) -> Job:
        """Return a job with its payload and, if it completed, its result."""
        return job_of((await self._connection.request("GET", _path(job_id)))["job"])

    async def jobs(self, status: str | None = None, *, page_size: int = PAGE) -> AsyncGenerator[Job, None]:
        """Yield the jobs there are, page by page: waiting ones in their order, others newest first."""
        cursor: str | None = None
        while True:
            query = {"status": status, "limit": page_size, "cursor": cursor}
            page = await self._connection.request("GET", "/api/jobs", query=query)
            for found in page["jobs"]:
                yield job_of(found)
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def explain(self, job_id: str) -> dict[str, Any]:
        """Say why a job waits: who could run it, and what others lack."""
        return dict((await self._connection.request("GET", f"{_path(job_id)}/explain"))["explanation"])

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended; InvalidTransition when it has. One that was cancelled stays so."""
        try:
            answer = await self._connection.request("POST", f"{_path(job_id)}/cancel")
        except InvalidTransition:
            job = await self.get(job_id)
            if job.status != JobStatus.CANCELLED:
                raise
            return job
        return job_of(answer["job"])

    async def retry(self, job_id: str) -> Job:
        """Put a failed, timed-out or cancelled job back into the queue."""
        answer = await self._connection.request("POST", f"{_path(job_id)}/retry", repeat=False)
        return job_of(answer["job"])

    async def download(self, where: str, target: str | Path) -> int:
        """Write a file that a result refers to, and return its size.

        `where` is a path of the control plane, or an address of its own, which is shown no token. What is there of
        `target` is replaced only by the whole.
        """
        target = Path(target)
        part = target.with_name(f".{target.name}.part")
        size = 0
        try:
            with part.open("wb") as out:
                async with self._connection.file(where) as chunks:
                    async for chunk in chunks:
                        size += out.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return size

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def wait(self, job_id: str, timeout_s: float = WAIT_S) -> Job:
        """Return the job once it has ended, however it did; WaitTimedOut, and it goes on, when that takes too long.

        A control plane may go and come back meanwhile.
        """
        async with aclosing(self.as_completed([job_id], timeout_s)) as ended:
            return await anext(ended)

    async def wait_all(self, job_ids: Iterable[str], timeout_s: float = WAIT_S) -> list[Job]:
        """Return all these jobs once the last has ended, in the order in which they are asked for."""
        wanted = list(job_ids)
        async with aclosing(self.as_completed(wanted, timeout_s)) as ended:
            found = {job.job_id: job async for job in ended}
        return [found[job_id] for job_id in wanted]

    async def as_completed(self, job_ids: Iterable[str], timeout_s: float = WAIT_S) -> AsyncGenerator[Job, None]:
        """Yield each job when it has ended, the first one first."""
        wanted = set(job_ids)
        until_s = time.monotonic() + timeout_s
        ends = Ends()
        with self._following.listening(ends) as listening:
            listening.follow(wanted)
            while wanted:
                try:
                    async with asyncio.timeout(until_s - time.monotonic()):
                        job = await ends.next()
                except TimeoutError:
                    raise too_long(wanted, timeout_s, ends.last) from None
                wanted.discard(job.job_id)
                yield job

    async def stream(self, job_id: str, timeout_s: float = WAIT_S) -> AsyncGenerator[Job, None]:
        """Yield the job whenever it has changed or got on, the last time when it has ended."""
        until_s = time.monotonic() + timeout_s
        newest = Newest()
        job = Job(job_id=job_id)
        with self._following.listening(newest) as listening:
            listening.follow([job_id])
            while not job.done:
                try:
                    async with asyncio.timeout(until_s - time.monotonic()):
                        job = await newest.next()
                except TimeoutError:
                    raise too_long({job_id}, timeout_s, {job_id: job}) from None
                yield job

    async def result(self, job_id: str, timeout_s: float = WAIT_S) -> Any:
        """Return what a job came to; JobFailed when it ended otherwise."""
        return result_of(await self.wait(job_id, timeout_s))

    async def run(
        self, service: str, payload: Any = None, *, wait_s: float = WAIT_S, **options: Unpack[JobOptions]
    ) -> Any:
        """Submit a job and return what it came to; JobFailed when it ended otherwise."""
        job = await self.submit(service, payload, **options)
        return await self.result(job.job_id, wait_s)

    # --- many ---------------------------------------------------------------------------------------------------------

    async def map(
        self,
        service: str,
        payloads: Iterable[Any],
        *,
        in_flight: int = IN_FLIGHT,
        wait_s: float = WAIT_S,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Any, None]:
        """Yield the result of each payload in their order; JobFailed at the first that has none."""
        jobs = self.map_jobs(service, payloads, in_flight=in_flight, wait_s=wait_s, **options)
        async with aclosing(jobs):
            async for job in jobs:
                yield result_of(job)

    async def map_jobs(
        self,
        service: str,
        payloads: Iterable[Any],
        *,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
        wait_s: float = WAIT_S,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Job, None]:
        """Yield a job for each payload once it has ended, however it did: in their order, or as they end.

        At most `in_flight` are under way or kept for their turn; the payloads are taken from their source as room
        is made. None may take longer than `wait_s`. Whoever leaves early leaves what he has submitted to the queue.
        """
        steps = self.mapping(service, options, in_flight=in_flight, ordered=ordered, wait_s=wait_s)
        source, wanted = iter(payloads), None
        async with aclosing(steps):
            while (step := await next_step(steps, wanted)) is not None:
                wanted = take(source, step) if isinstance(step, int) else None
                if isinstance(step, Job):
                    yield step

    def mapping(self, service: str, options: JobOptions, *, in_flight: int, ordered: bool, wait_s: float) -> Mapping:
        """Return the steps of `map_jobs`, whose payloads the caller brings."""
        if named := {"job_id", "idempotency_key"} & options.keys():
            raise ValueError(f"{min(named)} names one job, and here are many")

        async def submit(payloads: Sequence[Any]) -> list[str]:
            return await self.submit_many(NewJob(service, payload, options) for payload in payloads)

        return mapping(submit, self._following, in_flight=in_flight, ordered=ordered, wait_s=wait_s)


def _within(bodies: Sequence[Any]) -> int:
    """Return how many fit into one request; one does in any case."""
    sizes = accumulate(len(msgspec.json.encode(body)) for body in bodies)
    return max(1, sum(size <= _BATCH_BYTES for size in sizes))


def _path(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"


def result_of(job: Job) -> Any:
    if not job.ok:
        raise JobFailed(job)
    return job.result
