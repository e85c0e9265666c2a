"""Jobs without asyncio: `AsyncClient` on an event loop of its own, in a thread behind the scenes."""

import ssl
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from muster.client.async_client import GIVE_UP_AFTER_S, IN_FLIGHT, PAGE, TIMEOUT_S, WAIT_S, AsyncClient, result_of
from muster.client.background import BackgroundLoop
from muster.client.jobs import Job, JobOptions, NewJob
from muster.client.mapping import next_step, take


class Client:
    """What `AsyncClient` does, blocking. Several threads may use one client: they share its connections."""

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
        self._loop = BackgroundLoop()
        self._client = AsyncClient(
            url,
            token=token,
            ca_file=ca_file,
            tls=tls,
            timeout_s=timeout_s,
            give_up_after_s=give_up_after_s,
            correlation_id=correlation_id,
        )

    @property
    def url(self) -> str:
        """The control plane that is asked at present."""
        return self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections and the thread; a second time does nothing. Jobs go on."""
        if self._loop.started:
            self._loop.run(self._client.close())
        self._loop.close()

    # --- giving jobs --------------------------------------------------------------------------------------------------

    def submit(self, service: str, payload: Any = None, **options: Unpack[JobOptions]) -> Job:
        """Submit a job and return how it stands. It is safe to do so again with a `job_id` of one's own."""
        return self._loop.run(self._client.submit(service, payload, **options))

    def submit_many(self, jobs: Iterable[NewJob]) -> list[str]:
        """Submit jobs, some hundreds with each request, and return their ids in the same order."""
        return self._loop.run(self._client.submit_many(jobs))

    # --- looking and acting -------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return a job with its payload and, if it completed, its result."""
        return self._loop.run(self._client.get(job_id))

    def jobs(self, status: str | None = None, *, page_size: int = PAGE) -> Iterator[Job]:
        """Yield the jobs there are, page by page: waiting ones in their order, others newest first."""
        return self._loop.iterate(self._client.jobs(status, page_size=page_size))

    def explain(self, job_id: str) -> dict[str, Any]:
        """Say why a job waits: who could run it, and what others lack."""
        return self._loop.run(self._client.explain(job_id))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended; InvalidTransition when it has. One that was cancelled stays so."""
        return self._loop.run(self._client.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        """Put a failed, timed-out or cancelled job back into the queue."""
        return self._loop.run(self._client.retry(job_id))

    def download(self, where: str, target: str | Path) -> int:
        """Write a file that a result refers to, and return its size."""
        return self._loop.run(self._client.download(where, target))

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, job_id: str, timeout_s: float = WAIT_S) -> Job:
        """Return the job once it has ended, however it did; WaitTimedOut, and it goes on, when that takes too long."""
        return self._loop.run(self._client.wait(job_id, timeout_s))

    def wait_all(self, job_ids: Iterable[str], timeout_s: float = WAIT_S) -> list[Job]:
        """Return all these jobs once the last has ended, in the order in which they are asked for."""
        return self._loop.run(self._client.wait_all(job_ids, timeout_s))

    def as_completed(self, job_ids: Iterable[str], timeout_s: float = WAIT_S) -> Iterator[Job]:
        """Yield each job when it has ended, the first one first."""
        return self._loop.iterate(self._client.as_completed(job_ids, timeout_s))

    def stream(self, job_id: str, timeout_s: float = WAIT_S) -> Iterator[Job]:
        """Yield the job whenever it has changed or got on, the last time when it has ended."""
        return self._loop.iterate(self._client.stream(job_id, timeout_s))

    def result(self, job_id: str, timeout_s: float = WAIT_S) -> Any:
        """Return what a job came to; JobFailed when it ended otherwise."""
        return self._loop.run(self._client.result(job_id, timeout_s))

    def run(self, service: str, payload: Any = None, *, wait_s: float = WAIT_S, **options: Unpack[JobOptions]) -> Any:
        """Submit a job and return what it came to; JobFailed when it ended otherwise."""
        return self._loop.run(self._client.run(service, payload, wait_s=wait_s, **options))

    # --- many ---------------------------------------------------------------------------------------------------------

    def map(
        self,
        service: str,
        payloads: Iterable[Any],
        *,
        in_flight: int = IN_FLIGHT,
        wait_s: float = WAIT_S,
        **options: Unpack[JobOptions],
    ) -> Generator[Any, None, None]:
        """Yield the result of each payload in their order; JobFailed at the first that has none."""
        jobs = self.map_jobs(service, payloads, in_flight=in_flight, wait_s=wait_s, **options)
        with closing(jobs):
            for job in jobs:
                yield result_of(job)

    def map_jobs(
        self,
        service: str,
        payloads: Iterable[Any],
        *,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
        wait_s: float = WAIT_S,
        **options: Unpack[JobOptions],
    ) -> Generator[Job, None, None]:
        """Yield a job for each payload once it has ended, however it did: in their order, or as they end."""
        steps = self._client.mapping(service, options, in_flight=in_flight, ordered=ordered, wait_s=wait_s)
        source, wanted = iter(payloads), None
        with self._loop.closing(steps):
            while (step := self._loop.run(next_step(steps, wanted))) is not None:
                wanted = take(source, step) if isinstance(step, int) else None
                if isinstance(step, Job):
                    yield step
