"""The gateway for minutes under callers who leave and workers that fail: nothing may be left of any request.

    python -m bench.gateway --soak 30

Four workers answer, refuse, break off and fall silent by chance; callers of both dialects ask, stream, and leave when
they like. It ends with what is left over, which must be nothing, and with how the memory of the process went.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import psutil
import uvloop
from bench.gateway_server import StillFleet, web
from msgspec import Struct

from muster.gateway import Front, Gateway, GatewayLimits
from muster.system import SystemClock

_ENGINES = 4
_CALLERS = 48
_TOKENS = 12
_SETTLE_S = 10.0
_SAMPLE_S = 2.0
_STOP_S = 2.0
_LEAVES = 0.2  # of all callers
_LIMITS = GatewayLimits(
    first_byte_timeout_s=1.0,
    idle_timeout_s=0.5,
    first_byte_floor_s=0.3,
    idle_floor_s=0.3,
    quarantine_s=0.2,
    quarantine_max_s=1.0,
    probe_timeout_s=1.0,
)
_MOODS = ("well",) * 92 + ("refuse", "refuse", "reset", "reset", "cut", "cut", "stall", "hang")
_PATHS = ("/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate")


class Left(Struct, kw_only=True):
    """What there was, and what is left when all callers are gone."""

    requests: int = 0
    outcomes: dict[str, int] = {}
    seconds: float = 0.0
    memory_mb: tuple[float, ...] = ()
    in_flight: int = 0
    slots: int = 0
    callers: int = 0  # connections of theirs
    engines: int = 0  # connections to them
    answering: int = 0  # engines that work for nobody
    tasks: int = 0

    @property
    def leaks(self) -> int:
        return self.in_flight + self.slots + self.callers + self.engines + self.answering + self.tasks

    @property
    def slope_mb_per_hour(self) -> float:
        """Fit a line to the second half, when everything has been used once."""
        points = self.memory_mb[len(self.memory_mb) // 2 :]
        if len(points) < 2:
            return 0.0
        mean_x, mean_y = (len(points) - 1) / 2, sum(points) / len(points)
        above = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(points))
        below = sum((x - mean_x) ** 2 for x in range(len(points)))
        return above / below * 3600 / _SAMPLE_S


class Moody:
    """An engine that answers as chance has it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.answering = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        asked = json.loads(await reader.readexactly(length))
        openai = head.startswith(b"POST /v1")
        plain = b"/completions" in head[:30] and b"/chat" not in head[:30]
        mood = self._rng.choice(_MOODS)
        self.answering += 1
        try:
            return await self._answer(
                reader, writer, mood, openai=openai, plain=plain, stream=asked.get("stream", True)
            )
        finally:
            self.answering -= 1

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mood: str,
        *,
        openai: bool,
        plain: bool,
        stream: bool,
    ) -> bool:
        if mood == "reset":
            return False
        if mood == "hang":
            await reader.read()
            return False
        if mood == "refuse" or not stream:
            _whole(writer, 503 if mood == "refuse" else 200, openai=openai, plain=plain)
            return True
        kind = b"text/event-stream" if openai else b"application/x-ndjson"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
        for number in range(_TOKENS):
            if number == _TOKENS // 2 and mood == "cut":
                return False
            if number == _TOKENS // 2 and mood == "stall":
                await reader.read()
                return False
            _chunk(writer, _piece(last=number == _TOKENS - 1, openai=openai, plain=plain))
            await writer.drain()
            await asyncio.sleep(0)
        if openai:
            _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return True


def _piece(*, last: bool, openai: bool, plain: bool) -> bytes:
    if not openai:
        return json.dumps({"message": {"content": "x"}, "response": "x", "done": last}).encode() + b"\n"
    said = {"text": "x"} if plain else {"delta": {"content": "x"}}
    return b"data: " + json.dumps({"choices": [said | {"finish_reason": "stop" if last else None}]}).encode() + b"\n\n"


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _whole(writer: asyncio.StreamWriter, status: int, *, openai: bool, plain: bool) -> None:
    said = {"text": "x"} if plain else {"message": {"content": "x"}}
    body = json.dumps({"choices": [said | {"finish_reason": "stop"}]} if openai else {"message": {}, "done": True})
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body.encode())


async def _call(address: tuple[str, int], rng: random.Random) -> str:
    """Ask once; return how it went."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        asked = {"model": "mock", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
        body = json.dumps(asked | {"stream": rng.random() < 0.6}).encode()
        head = f"POST {rng.choice(_PATHS)} HTTP/1.1\r\nhost: m\r\nauthorization: Bearer t\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if rng.random() < _LEAVES:
            await reader.read(rng.randrange(1, 2000))
            return "left"
        answer = await reader.read()
    except OSError:
        return "lost"
    finally:
        writer.transport.abort()
    status = answer[9:12].decode()
    return "told" if status == "200" and b'"error"' in answer else status


@contextlib.asynccontextmanager
async def _engines(rng: random.Random) -> AsyncIterator[tuple[list[Moody], list[str]]]:
    moody = [Moody(rng) for _ in range(_ENGINES)]
    servers = [await asyncio.start_server(each, "127.0.0.1", 0) for each in moody]
    try:
        yield moody, [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    finally:
        for server in servers:
            server.close()


async def soak(*, requests: int | None = None, seconds: float = 3600.0, seed: int = 1) -> Left:
    """Go on for so many requests or seconds, whichever is over first, and return what is left."""
    rng = random.Random(seed)
    before = len(asyncio.all_tasks())
    left = Left()
    outcomes: Counter[str] = Counter()
    started_s = time.monotonic()
    async with _engines(rng) as (moody, urls):
        fleet = StillFleet(urls)
        gateway = Gateway(fleet, clock=SystemClock(), rng=rng, authenticate=lambda _token, _right: None, limits=_LIMITS)
        front = Front(gateway, web, [("127.0.0.1", 0)])
        await front.start()
        asked = 0

        def goes_on() -> bool:
            enough = requests is not None and asked >= requests
            return not enough and time.monotonic() - started_s < seconds

        async def caller() -> None:
            nonlocal asked
            while goes_on():
                asked += 1
                outcomes[await _call(front.addresses[0], rng)] += 1

        async with asyncio.TaskGroup() as callers:
            measuring = asyncio.create_task(_measure(left))
            everybody = [callers.create_task(caller()) for _ in range(_CALLERS)]
        del everybody
        measuring.cancel()
        await _settled(lambda: not (gateway.in_flight or front.connections or sum(each.answering for each in moody)))
        left.requests, left.outcomes = asked, dict(outcomes)
        left.seconds = time.monotonic() - started_s
        left.in_flight = gateway.in_flight
        left.slots = sum(gateway.stats().in_flight_by_worker.values())
        left.callers = front.connections
        left.answering = sum(each.answering for each in moody)
        await front.stop(_STOP_S)
        await _settled(lambda: not gateway.upstream_connections)
        left.engines = gateway.upstream_connections
    await _settled(lambda: len(asyncio.all_tasks()) <= before)
    left.tasks = len(asyncio.all_tasks()) - before
    return left


async def _measure(left: Left) -> None:
    process = psutil.Process()
    while True:
        left.memory_mb = (*left.memory_mb, process.memory_info().rss / 2**20)
        await asyncio.sleep(_SAMPLE_S)


async def _settled(check: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _SETTLE_S
    while not check() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - no event tells of all that is looked at
        await asyncio.sleep(0.01)


def main(minutes: float) -> int:
    """Return the exit code: 1 when something is left over."""
    print(f"\nGateway: {_CALLERS} callers and {_ENGINES} workers with all their faults, for {minutes:g} minutes")
    left = uvloop.run(soak(seconds=minutes * 60))
    memory = left.memory_mb or (0.0,)
    print(f"{left.requests:,} requests in {left.seconds:.0f} s: {left.outcomes}")
    print(f"memory: {memory[0]:.1f} MB at first, {memory[-1]:.1f} MB at last, {left.slope_mb_per_hour:+.2f} MB/hour")
    print(
        f"left over: {left.in_flight} requests, {left.slots} slots, {left.callers} callers, {left.engines} connections "
        f"to workers, {left.answering} workers at work, {left.tasks} tasks"
    )
    return 1 if left.leaks else 0
