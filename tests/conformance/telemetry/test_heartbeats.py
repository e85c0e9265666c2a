"""What an agent tells a queen: one heartbeat a second, whatever the queen, the workers or the driver do."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.agent.report.hive import HiveReport
from muster.errors import MusterError, UpstreamFailed
from muster.links.http.queen import PATH, HttpQueen
from muster.system import SystemClock
from muster.wire import decode, encode
from muster.wire.hives import HiveHeartbeat, HiveInfo, HiveWorker
from tests.muster_process import free_port
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes
from tests.waiting import eventually

WORKER = HiveWorker(pid=12, group="llm", instance="8080", gpu_util_pct=85.0, vram_mb=8192, model="llama-3.2-1b")

BUSY = HiveWorker(  # with all that there is to tell
    pid=4_000_000,
    group="llm-of-some-name",
    instance="llama-3.1-8b-instruct-gpu0",
    gpu_util_pct=99.25,
    vram_mb=80_000,
    model="meta-llama/Llama-3.1-8B-Instruct-Q4_K_M",
    cpu_pct=1234.5,
    rss_mb=123_456.75,
    io_r_mb_s=1234.5,
    io_w_mb_s=1234.5,
    uptime_s=31_536_000,
    total_vram_mb=81_920,
)


class FakeQueen:
    """Notes what is posted; answers as told, or not at all."""

    def __init__(self) -> None:
        self.status = 200
        self.silent = False
        self.bytes_max = 0  # of what was posted
        self.posts: list[tuple[str, Any]] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bytes_max = max(self.bytes_max, len(body))
        self.posts.append((request.path, json.loads(body)))
        if self.silent:
            await asyncio.Event().wait()
        return web.json_response({}, status=self.status)


class Hive:
    """What an agent has for it, its workers as given."""

    def __init__(self, send: Callable[[HiveHeartbeat], Awaitable[None]], *, clock: Any = None, every_s: float) -> None:
        self.workers: tuple[HiveWorker, ...] | Exception = (WORKER,)
        self.events: list[str] = []
        self.report = HiveReport(
            lambda: HiveInfo(id="hive-1", hostname="10.0.0.7"),
            self._look,
            send,
            lambda kind, **_: self.events.append(kind),
            clock or SystemClock(),
            interval_s=every_s,
        )

    async def _look(self) -> tuple[HiveWorker, ...]:
        if isinstance(self.workers, Exception):
            raise self.workers
        return self.workers


@pytest.fixture
async def queen() -> AsyncIterator[FakeQueen]:
    queen = FakeQueen()
    await queen.start()
    yield queen
    await queen.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_send_heartbeat_posts_to_queen(queen: FakeQueen, session: aiohttp.ClientSession) -> None:
    await Hive(HttpQueen(queen.url, session).send, every_s=1).report.report()
    ((path, body),) = queen.posts
    assert path == PATH
    assert body["hive"]["id"] == "hive-1"
    assert body["timestamp"].endswith("Z")


async def test_send_heartbeat_includes_workers(queen: FakeQueen, session: aiohttp.ClientSession) -> None:
    """Every field of the document is there, also one that is unknown."""
    await Hive(HttpQueen(queen.url, session).send, every_s=1).report.report()
    (worker,) = queen.posts[0][1]["workers"]
    told = {"pid": 12, "group": "llm", "instance": "8080", "gpu_util_pct": 85.0, "vram_mb": 8192}
    assert worker.items() >= (told | {"model": "llama-3.2-1b", "cpu_pct": None, "uptime_s": None}).items()


async def test_bench_a_heartbeat_of_a_hundred_workers_has_less_than_100_kb(
    queen: FakeQueen, session: aiohttp.ClientSession
) -> None:
    hive = Hive(HttpQueen(queen.url, session).send, every_s=1)
    hive.workers = tuple(BUSY for _ in range(100))
    await hive.report.report()
    assert len(queen.posts[0][1]["workers"]) == 100
    assert queen.bytes_max < 100_000


@pytest.mark.parametrize("failure", [OSError("/proc is gone"), UpstreamFailed("the driver hangs")])
async def test_send_heartbeat_handles_collection_failure(
    queen: FakeQueen, session: aiohttp.ClientSession, failure: Exception
) -> None:
    hive = Hive(HttpQueen(queen.url, session).send, every_s=1)
    hive.workers = failure
    await hive.report.report()
    assert queen.posts[0][1]["workers"] == []


@in_virtual_time
async def test_start_heartbeat_task_sends_every_1s() -> None:
    """In 3.5 seconds 3 or 4 of them."""
    sent: list[HiveHeartbeat] = []

    async def send(message: HiveHeartbeat) -> None:
        sent.append(message)
        await time_passes(0.2)  # an answer that takes its time is no reason to tell less often

    hive = Hive(send, clock=LoopClock(), every_s=1.0)
    await hive.report.start()
    await time_passes(3.5)
    await hive.report.stop()
    assert len(sent) in {3, 4}


@pytest.mark.parametrize("status", [404, 500])
async def test_heartbeat_retries_on_queen_error(queen: FakeQueen, session: aiohttp.ClientSession, status: int) -> None:
    queen.status = status
    hive = Hive(HttpQueen(queen.url, session).send, every_s=0.02)
    await hive.report.start()
    await eventually(lambda: len(queen.posts) > 3)
    assert hive.events == ["queen_not_reached"], "told once, and not with every try"
    queen.status = 200
    await eventually(lambda: hive.events == ["queen_not_reached", "queen_reached"])
    await hive.report.stop()


async def test_heartbeat_queen_returns_404(queen: FakeQueen, session: aiohttp.ClientSession) -> None:
    queen.status = 404
    with pytest.raises(UpstreamFailed, match="404"):
        await Hive(HttpQueen(queen.url, session).send, every_s=1).report.report()


async def test_heartbeat_queen_not_found(session: aiohttp.ClientSession) -> None:
    away = HttpQueen(f"http://127.0.0.1:{free_port()}", session)
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await Hive(away.send, every_s=1).report.report()


@pytest.mark.parametrize("url", ["not-a-url", "http://", "ftp://x", "http://[::1", "http://a b"])
async def test_heartbeat_invalid_url(session: aiohttp.ClientSession, url: str) -> None:
    hive = Hive(HttpQueen(url, session).send, every_s=0.01)
    with pytest.raises(MusterError):
        await hive.report.report()
    await hive.report.start()
    await eventually(lambda: hive.events == ["queen_not_reached"])
    await hive.report.stop()


async def test_heartbeat_timeout(queen: FakeQueen, session: aiohttp.ClientSession) -> None:
    """Five seconds, here made short: a queen that accepts and never answers."""
    assert inspect.signature(HttpQueen).parameters["timeout_s"].default == 5.0
    queen.silent = True
    with pytest.raises(UpstreamFailed, match=r"did not answer within 0\.1 s"):
        await Hive(HttpQueen(queen.url, session, timeout_s=0.1).send, every_s=1).report.report()


async def test_lesson_a_queen_that_never_answers_does_not_freeze_the_hive(
    queen: FakeQueen, session: aiohttp.ClientSession
) -> None:
    queen.silent = True
    hive = Hive(HttpQueen(queen.url, session, timeout_s=0.05).send, every_s=0.02)
    await hive.report.start()
    await eventually(lambda: len(queen.posts) > 2)
    queen.silent = False
    await eventually(lambda: "queen_reached" in hive.events)
    await hive.report.stop()


async def test_queen_unreachable(session: aiohttp.ClientSession) -> None:
    """Workers are looked at all the same, and told to the queen once she is there."""
    queen = FakeQueen()
    hive = Hive(HttpQueen(queen.url, session).send, every_s=0.02)
    await hive.report.start()
    await eventually(lambda: hive.events == ["queen_not_reached"])
    hive.workers = (WORKER, HiveWorker(pid=13, group="llm", instance="8081"))
    await queen.start()
    await eventually(lambda: queen.posts)
    assert [worker["pid"] for worker in queen.posts[0][1]["workers"]] == [12, 13]
    await hive.report.stop()
    await queen.stop()


@in_virtual_time
async def test_a_look_that_hangs_costs_its_own_figures_and_a_tick_or_two() -> None:
    sent: list[HiveHeartbeat] = []

    async def send(message: HiveHeartbeat) -> None:
        sent.append(message)

    async def hang() -> tuple[HiveWorker, ...]:
        await asyncio.Event().wait()
        return ()

    hive = Hive(send, clock=LoopClock(), every_s=1.0)
    hive.report._look = hang
    await hive.report.start()
    await time_passes(10.5)
    await hive.report.stop()
    assert len(sent) >= 5
    assert all(message.workers == () for message in sent)


async def test_heartbeat_json_serialization(queen: FakeQueen, session: aiohttp.ClientSession) -> None:
    """What an agent sends, a queen of ours understands."""
    await Hive(HttpQueen(queen.url, session).send, every_s=1).report.report()
    told = decode(encode(queen.posts[0][1]), HiveHeartbeat)
    assert (told.hive.id, told.workers) == ("hive-1", (WORKER,))
