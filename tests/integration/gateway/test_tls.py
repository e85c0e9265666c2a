"""The one port over TLS: what holds without it holds with it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import websockets

from muster.gateway import GatewayLimits
from muster.tls import Certificate, trusting
from tests.certificates import write_certificate
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, stall_after
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import chat, get, post
from tests.waiting import eventually

TEXT = "".join(TOKENS)
MEGABYTE = 2**20


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(*write_certificate(tmp_path))


@pytest.fixture
def trust(certificate: Certificate, tmp_path: Path) -> ssl.SSLContext:
    return trusting(str(tmp_path / "server.crt"))


@pytest.fixture
async def sealed(engine: Engine, certificate: Certificate) -> AsyncIterator[Door]:
    async with opened(FleetTwin(worker(engine.url)), tls=certificate.context) as door:
        yield door


async def test_a_connection_changes_between_gateway_and_web_application(sealed: Door, trust: ssl.SSLContext):
    async with await sealed.wire(trust) as wire:
        for turn in range(3):
            wire.send(get("/v1/models"))
            assert (await wire.answer()).status == 200
            wire.send(post("/echo", b"turn %d" % turn))
            assert (await wire.answer()).body == b"/echo|turn %d" % turn
            wire.send(post("/v1/chat/completions", chat(stream=True)))
            assert (await wire.answer()).body.endswith(b"data: [DONE]\n\n")
            wire.send(get("/ticks"))
            assert (await wire.answer()).body == b"0;1;2;"


async def test_a_long_body_comes_whole(sealed: Door, trust: ssl.SSLContext):
    body = b"x" * (20 * MEGABYTE)
    async with await sealed.wire(trust) as wire:
        wire.send(post("/echo", body))
        assert len((await wire.answer()).body) == len(body) + len("/echo|")
        wire.send(post("/v1/chat/completions", chat() | {"padding": "x" * (5 * MEGABYTE)}))
        assert (await wire.answer()).json["choices"][0]["message"]["content"] == TEXT


async def test_a_client_library_streams_and_keeps_its_connection(sealed: Door, trust: ssl.SSLContext):
    host, port = sealed.address
    connector = aiohttp.TCPConnector(ssl=trust, limit=1)
    async with aiohttp.ClientSession(f"https://{host}:{port}", connector=connector) as client:
        for _ in range(3):
            async with client.post("/api/chat", json=chat(stream=True)) as answer:
                lines = [line async for line in answer.content]
            assert b'"done":true' in lines[-1]
    await eventually(lambda: sealed.front.connections == 0)


async def test_a_web_socket_takes_the_connection_over(sealed: Door, trust: ssl.SSLContext):
    host, port = sealed.address
    async with websockets.connect(f"wss://{host}:{port}/ws", ssl=trust, proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


@pytest.mark.parametrize("goodbye", ["abort", "close"])
async def test_who_leaves_takes_the_work_for_him_along(certificate: Certificate, trust: ssl.SSLContext, goodbye: str):
    fleet_engine = Engine(stall_after(2))
    async with fleet_engine as engine, opened(FleetTwin(worker(engine.url)), tls=certificate.context) as door:
        wires = [await door.wire(trust) for _ in range(20)]
        for wire in wires:
            wire.send(post("/v1/chat/completions", chat(stream=True)))
        for wire in wires:
            assert (await wire.head())[0] == 200
        assert engine.answering == 20
        for wire in wires:
            if goodbye == "abort":
                wire.abort()
            else:
                wire.writer.close()
        await eventually(lambda: engine.answering == 0)
        await eventually(lambda: door.front.connections == 0)
        assert door.reserved == {}
        for wire in wires:
            wire.abort()


async def test_who_does_not_read_holds_up_only_himself(certificate: Certificate, trust: ssl.SSLContext):
    sent = 0

    async def flood(asked: Asked) -> None:
        nonlocal sent
        asked.head(content_type="text/event-stream")
        while True:
            asked.event({"choices": [{"delta": {"content": "x" * 10_000}}]})
            sent += 10_000
            await asked.written()

    async with Engine(flood) as engine, opened(FleetTwin(worker(engine.url)), tls=certificate.context) as door:
        async with await door.wire(trust) as wire:
            wire.send(post("/v1/chat/completions", chat(stream=True)))
            await wire.head()
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport for reading as well
            seen = -1

            def stands_still() -> bool:
                nonlocal seen
                before, seen = seen, sent
                return before == sent

            await eventually(stands_still)
            async with await door.wire(trust) as other:
                other.send(get("/api/version"))
                assert (await other.answer()).status == 200
        await eventually(lambda: door.front.connections == 0)
    assert sent < 64 * MEGABYTE


async def test_a_refused_request_is_answered_before_the_connection_ends(sealed: Door, trust: ssl.SSLContext):
    async with await sealed.wire(trust) as wire:
        wire.send(b"NONSENSE\r\n\r\n")
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""


async def test_who_still_sends_reads_that_it_is_too_much(
    engine: Engine, certificate: Certificate, trust: ssl.SSLContext
):
    limits = GatewayLimits(body_bytes_max=MEGABYTE)
    for _ in range(5):
        async with (
            opened(FleetTwin(worker(engine.url)), tls=certificate.context, limits=limits) as door,
            await door.wire(trust) as wire,
        ):
            wire.send(post("/v1/chat/completions", b"x" * (8 * MEGABYTE)))
            assert (await wire.answer()).status == 413


async def test_who_speaks_no_tls_gets_nothing_and_harms_nobody(sealed: Door, trust: ssl.SSLContext):
    plain = await sealed.wire()
    plain.send(get("/health"))
    assert await plain.rest() == b""
    for _ in range(20):
        scanner = await sealed.wire()
        scanner.abort()
    async with await sealed.wire(trust) as wire:
        wire.send(get("/api/version"))
        assert (await wire.answer()).status == 200
    plain.abort()


async def test_a_renewed_certificate_is_shown_to_new_callers(
    sealed: Door, certificate: Certificate, trust: ssl.SSLContext, tmp_path: Path
):
    async with await sealed.wire(trust) as staying:
        write_certificate(tmp_path)
        certificate._stamps = ()
        assert certificate.refresh()

        staying.send(get("/api/version"))
        assert (await staying.answer()).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await sealed.wire(trust)
        async with await sealed.wire(trusting(str(tmp_path / "server.crt"))) as fresh:
            fresh.send(get("/api/version"))
            assert (await fresh.answer()).status == 200


async def test_a_stop_lets_the_stream_that_runs_end(engine: Engine, certificate: Certificate, trust: ssl.SSLContext):
    fleet = FleetTwin(worker(engine.url))
    async with opened(fleet, tls=certificate.context) as door, await door.wire(trust) as wire:
        wire.send(post("/v1/chat/completions", chat(stream=True)))
        await wire.head()
        stopping = asyncio.create_task(door.front.stop(10.0))
        assert (await wire.rest()).count(b"data: [DONE]") == 1
        await stopping
