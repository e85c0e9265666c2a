"""Both ends of the measured fan-out: a worker that tells of jobs, and a thousand people who look.

python -m bench.monitor_load tell STORE EVENTS_PER_S SECONDS ; it publishes progress as the control plane does
python -m bench.monitor_load read PORT READERS ; it reads all streams at once until standard input ends, then prints
what came. Every event carries when it was told, on the clock that both processes share.
"""

import asyncio
import json
import re
import select
import socket
import sys
import time

from msgspec import Struct

from muster.control.jobs.service import PROGRESS_TOPIC
from muster.domain.job import Progress
from muster.ids import JobId, SessionId
from muster.stores.valkey import ValkeyStore
from muster.wire import ProgressReport, ProgressReports, encode

_JOBS = 1000  # told of in turn, so that two events of one job are never joined into one
_TICK_S = 0.01
_PADDING = "a picture takes form, step by step, " * 4  # an event has some 300 bytes on the wire
_MARK = b"~"  # once in each event, and nowhere else
_TOLD_AT = re.compile(rb"~(\d+)us")
_TIMED = 20  # of so many readers one is timed event by event, the others are counted
_READ_BYTES = 262_144
_CONNECT_S = 30.0


async def tell(store_url: str, events_per_s: float, seconds: float) -> int:
    """Publish in small steps at an even pace; return how many."""
    store = await ValkeyStore.open(store_url)
    told, began_s = 0, time.monotonic()
    try:
        while (past_s := time.monotonic() - began_s) < seconds:
            due = int(past_s * events_per_s) - told
            if due:
                reports = tuple(_report(told + number) for number in range(due))
                await store.bus.publish(
                    PROGRESS_TOPIC, encode(ProgressReports(session_id=SessionId("bench"), reports=reports))
                )
                told += due
            await asyncio.sleep(_TICK_S)
    finally:
        await store.close()
    return told


def _report(number: int) -> ProgressReport:
    message = f"~{time.monotonic_ns() // 1000}us {_PADDING}"
    progress = Progress(fraction=0.5, message=message, at_ms=round(time.time() * 1000))
    return ProgressReport(job_id=JobId(f"job-{number % _JOBS}"), attempt=1, progress=progress)


class Read(Struct, kw_only=True):
    """What the readers got."""

    events: list[int]  # of each reader
    ended: int  # streams that the server closed
    bytes_read: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Readers:
    """All in one loop over epoll: what it costs to read must not hide what it costs to tell."""

    def __init__(self, port: int, count: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._numbers: dict[int, int] = {}
        self.events = [0] * count
        self.delays_ms: list[float] = []
        self.ended = self.bytes_read = 0
        self._rest: dict[int, bytes] = {}
        for number in range(count):
            self._open(port, number)

    def _open(self, port: int, number: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port), _CONNECT_S)
        connection.sendall(b"GET /api/events/monitor HTTP/1.1\r\nHost: bench\r\n\r\n")
        head = b""
        while b"full_state_snapshot" not in head:  # it listens for good now
            part = connection.recv(_READ_BYTES)
            if not part:
                raise RuntimeError(f"the control plane closed reader {number}: {head[:200]!r}")
            head += part
        connection.settimeout(0)
        self._sockets[connection.fileno()] = connection
        self._numbers[connection.fileno()] = number
        self._poll.register(connection, select.EPOLLIN)

    def run(self) -> None:
        self._poll.register(sys.stdin, select.EPOLLIN)
        buffer = bytearray(_READ_BYTES)
        view = memoryview(buffer)
        while True:
            for fileno, _ in self._poll.poll():
                if fileno == sys.stdin.fileno():
                    return
                size = self._sockets[fileno].recv_into(buffer)
                if not size:
                    self.ended += 1
                    self._poll.unregister(fileno)
                    continue
                self._take(self._numbers[fileno], view[:size].tobytes())

    def _take(self, number: int, data: bytes) -> None:
        self.bytes_read += len(data)
        self.events[number] += data.count(_MARK)
        if number % _TIMED:
            return
        now_us = time.monotonic_ns() // 1000
        data = self._rest.get(number, b"") + data
        end = 0
        for found in _TOLD_AT.finditer(data):
            self.delays_ms.append((now_us - int(found[1])) / 1000)
            end = found.end()
        self._rest[number] = data[max(end, len(data) - 40) :]

    def found(self) -> Read:
        delays = sorted(self.delays_ms) or [0.0]
        return Read(
            events=self.events,
            ended=self.ended,
            bytes_read=self.bytes_read,
            p50_ms=delays[len(delays) // 2],
            p99_ms=delays[int(len(delays) * 0.99)],
            max_ms=delays[-1],
        )


def main() -> None:
    what, *given = sys.argv[1:]
    if what == "tell":
        print(asyncio.run(tell(given[0], float(given[1]), float(given[2]))))
        return
    readers = Readers(int(given[0]), int(given[1]))
    print("ready", flush=True)
    readers.run()
    found = readers.found()
    print(json.dumps({name: getattr(found, name) for name in found.__struct_fields__}), flush=True)


if __name__ == "__main__":
    main()
