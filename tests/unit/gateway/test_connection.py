"""A connection fed by hand: whatever the pieces, the answers are those to the whole."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.gateway.connection import Connection
from muster.gateway.gateway import Gateway
from muster.gateway.guest import Guests
from muster.gateway.limits import GatewayLimits
from tests.chance import FixedChance
from tests.clocks import ManualClock
from tests.integration.gateway.door import web
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import chat, get, post, post_chunked

LIMITS = GatewayLimits(body_bytes_max=5000)


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.reading_paused = False
        self.ended = False
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Fed:
    """A connection whose bytes come from the test."""

    def __init__(self, guests: Guests, clock: ManualClock) -> None:
        gateway = Gateway(
            FleetTwin(worker("http://127.0.0.1:9")),
            clock=clock,
            rng=FixedChance(),
            authenticate=lambda _shown, _right: None,
            limits=LIMITS,
        )
        self.transport = FakeTransport()
        self.connections: set[Connection] = set()
        self.connection = Connection(gateway, guests, self.connections)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        if not self.transport.closed:
            self.transport.protocol.data_received(data)


async def settled() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@pytest.fixture
async def guests() -> AsyncIterator[Guests]:
    guests = Guests(web)
    await guests.start()
    yield guests
    await guests.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# Answered here or by the web application; none waits for an engine, so the order of the answers says all.
CONVERSATION = (
    get("/v1/models")
    + post("/echo", b"plain")
    + get("/api/version")
    + post_chunked("/echo", {"a": "\r\n\r\n"})
    + post("/api/show", {"model": "minilm"})
    + get("/ticks")
    + post_chunked("/api/show", {"model": "smollm2-135m"})
    + post("/v1/chat/completions", {"model": 1})
    + get("/api/tags", method="HEAD")
    + post("/early", b"body")
    + post("/v1/chat/completions", chat(model="nobody-has-it"))
    + get("/bye", "connection: close")
)


async def answers_to(pieces: list[bytes], guests: Guests, clock: ManualClock, rng: random.Random | None) -> bytes:
    fed = Fed(guests, clock)
    for piece in pieces:
        fed.feed(piece)
        if rng is None or rng.random() < 0.5:
            await settled()
    for _ in range(40):
        await settled()
    assert fed.transport.closed
    fed.connection.connection_lost(None)
    assert fed.connections == set()
    return fed.transport.written


async def test_the_answers_do_not_depend_on_how_the_bytes_come(guests: Guests, clock: ManualClock):
    whole = await answers_to([CONVERSATION], guests, clock, None)
    assert whole.count(b"HTTP/1.1 ") == 12

    size = len(CONVERSATION)
    for at in range(1, size, 7):
        assert await answers_to([CONVERSATION[:at], CONVERSATION[at:]], guests, clock, None) == whole
    rng = random.Random(5)
    for _ in range(60):
        edges = [0, *sorted(rng.sample(range(1, size), rng.randrange(1, 40))), size]
        pieces = [CONVERSATION[start:end] for start, end in itertools.pairwise(edges)]
        assert await answers_to(pieces, guests, clock, rng) == whole
    assert await answers_to([bytes([byte]) for byte in CONVERSATION], guests, clock, rng) == whole


async def test_garbage_ends_in_a_refusal_or_in_waiting_and_never_in_a_fault(
    guests: Guests, clock: ManualClock, capsys: pytest.CaptureFixture[str]
):
    rng = random.Random(3)
    for _ in range(300):
        data = bytearray(CONVERSATION)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        fed = Fed(guests, clock)
        fed.feed(bytes(data))
        await settled()
        fed.connection.connection_lost(ConnectionResetError())
    assert "gateway_connection_failed" not in capsys.readouterr().out


async def test_a_refused_caller_gets_time_to_read_and_is_then_cut_off(guests: Guests, clock: ManualClock):
    fed = Fed(guests, clock)
    fed.feed(b"nonsense\r\n\r\n")
    assert fed.transport.written.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert fed.transport.ended
    fed.feed(b"more nonsense")
    fed.connection.check(clock.monotonic_s())
    assert not fed.transport.closed
    clock.advance(LIMITS.linger_s + 1)
    fed.connection.check(clock.monotonic_s())
    assert fed.transport.aborted


async def test_what_is_silent_where_a_word_is_due_is_closed_in_its_own_time(guests: Guests, clock: ManualClock):
    cases = [
        (b"", LIMITS.keepalive_idle_s, b""),
        (b"GET / HT", LIMITS.head_timeout_s, b"HTTP/1.1 408"),
        (post("/api/chat", chat())[:-1], LIMITS.body_idle_timeout_s, b"HTTP/1.1 408"),
        (post("/echo", b"abc")[:-1], LIMITS.body_idle_timeout_s, b""),
    ]
    for data, patience_s, said in cases:
        fed = Fed(guests, clock)
        if data:
            fed.feed(data)
        fed.connection.check(clock.monotonic_s())
        clock.advance(patience_s - 0.5)
        fed.connection.check(clock.monotonic_s())
        assert not fed.transport.closed
        assert fed.transport.written == b""
        clock.advance(1)
        fed.connection.check(clock.monotonic_s())
        assert [fed.transport.closed, fed.transport.ended].count(True) == 1
        assert fed.transport.written[: len(said)] == said
        fed.connection.connection_lost(ConnectionResetError())


async def test_the_next_answer_waits_until_the_caller_reads(guests: Guests, clock: ManualClock):
    fed = Fed(guests, clock)
    fed.connection.pause_writing()
    fed.feed(get("/api/version"))
    assert fed.transport.written == b""
    fed.connection.resume_writing()
    assert fed.transport.written.startswith(b"HTTP/1.1 200 OK")


async def test_a_fault_of_ours_ends_the_connection_and_is_logged(
    guests: Guests, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fed = Fed(guests, clock)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Gateway, "serve", fail)
    fed.feed(get("/api/version"))
    assert fed.transport.aborted
    assert "gateway_connection_failed" in capsys.readouterr().out
