"""The work that every queue is given, so that only the library differs.

    python -m bench.peers.PEER one N        submit N jobs, each when the one before was accepted
    python -m bench.peers.PEER bulk N       submit N jobs in the library's own way for many, else a hundred at a time
    python -m bench.peers.PEER latency N    submit a job, wait for its result, N times
    python -m bench.peers.PEER worker       work, where the library has no program for it

Each prints one line of JSON. BENCH_URL is the server, BENCH_RESULTS whether results are kept, BENCH_HITS the file to
which a job appends one byte: so the jobs that ran are counted from outside.
"""

import asyncio
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

URL = os.environ["BENCH_URL"]
RESULTS = os.environ["BENCH_RESULTS"] == "1"
WARM_UP = 20
AT_ONCE = 100
PER_CALL = 1000

_file: int | None = None


def hit() -> None:
    """Do the whole job."""
    global _file  # noqa: PLW0603 - opened once in each worker process, wherever the library forks it
    if _file is None:
        _file = os.open(os.environ["BENCH_HITS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_file, b".")


class Queue(ABC):
    """A library whose calls block."""

    @abstractmethod
    def submit(self) -> None: ...

    def submit_many(self, count: int) -> None:
        for _ in range(count):
            self.submit()

    @abstractmethod
    def submit_and_wait(self) -> None: ...

    def run(self, what: str, count: int) -> None:
        self.submit()  # connections are opened, scripts loaded
        if what == "latency":
            _tell_latencies([_timed(self.submit_and_wait) for _ in range(WARM_UP + count)])
        elif what == "bulk":
            _tell_seconds(count, _timed(lambda: self.submit_many(count)))
        else:
            _tell_seconds(count, _timed(lambda: Queue.submit_many(self, count)))


class AsyncQueue(ABC):
    """A library whose calls are awaited."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def submit(self) -> None: ...

    async def submit_many(self, count: int) -> None:
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(self.submit() for _ in range(min(AT_ONCE, count - first))))

    @abstractmethod
    async def submit_and_wait(self) -> None: ...

    async def work_on(self, what: str, count: int) -> None:
        await self.open()
        await self.submit()
        start = time.perf_counter()
        if what == "latency":
            times = []
            for _ in range(WARM_UP + count):
                began = time.perf_counter()
                with suppress(TimeoutError):  # SAQ can miss the word of a job that ends while it is asked for
                    await self.submit_and_wait()
                    times.append(time.perf_counter() - began)
            _tell_latencies(times)
            return
        if what == "bulk":
            await self.submit_many(count)
        else:
            for _ in range(count):
                await self.submit()
        _tell_seconds(count, time.perf_counter() - start)


def main(queue: Queue | AsyncQueue, worker: Callable[[], None] | None = None) -> None:
    what = sys.argv[1]
    if what == "worker":
        assert worker is not None, "this library has a program of its own"
        worker()
    elif isinstance(queue, Queue):
        queue.run(what, int(sys.argv[2]))
    else:
        import uvloop  # noqa: PLC0415 - only those that await have it

        uvloop.run(queue.work_on(what, int(sys.argv[2])))


def _timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _tell_seconds(count: int, seconds: float) -> None:
    sys.stdout.write(json.dumps({"per_s": count / seconds}) + "\n")


def _tell_latencies(times: list[float]) -> None:
    sys.stdout.write(json.dumps({"ms": [seconds * 1000 for seconds in times[WARM_UP:]]}) + "\n")
