"""The gateway's requests and all others on one port and one connection, in any order and in any pieces."""

import asyncio
import socket
from typing import cast

import pytest
import websockets
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muster.gateway import Front, GatewayLimits
from muster.gateway.guest import Guests
from tests.integration.gateway.door import Door, opened, web
from tests.integration.gateway.engine import TOKENS, Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import chat, get, post, post_chunked
from tests.waiting import eventually

TEXT = "".join(TOKENS)


async def test_a_connection_changes_between_gateway_and_web_application_and_back(door: Door, engine: Engine):
    async with await door.wire() as wire:
        for turn in range(3):
            wire.send(get("/v1/models"))
            assert [model["id"] for model in (await wire.answer()).json["data"]] == ["minilm:latest", "smollm2-135m"]
            wire.send(post("/echo", b"turn %d" % turn))
            assert (await wire.answer()).body == b"/echo|turn %d" % turn
            wire.send(post("/v1/chat/completions", chat()))
            assert (await wire.answer()).json["choices"][0]["message"]["content"] == TEXT
            wire.send(get("/ticks"))
            assert (await wire.answer()).body == b"0;1;2;"

    assert door.front.connections <= 1
    assert engine.connections_ever == 1, "the connection to the engine is kept between requests"


async def test_pipelined_requests_of_both_kinds_are_answered_in_order(door: Door):
    async with await door.wire() as wire:
        wire.send(
            get("/ticks")
            + post("/v1/chat/completions", chat(stream=True))
            + post_chunked("/echo", {"chunked": True})
            + post_chunked("/v1/chat/completions", chat())
            + get("/api/version")
            + get("/last")
        )

        assert (await wire.answer()).body == b"0;1;2;"
        assert (await wire.answer()).body.endswith(b"data: [DONE]\n\n")
        assert (await wire.answer()).body == b'/echo|{"chunked": true}'
        assert (await wire.answer()).json["choices"][0]["message"]["content"] == TEXT
        assert (await wire.answer()).json == {"version": "0.33.0"}
        assert (await wire.answer()).body == b"/last|"


async def test_our_answer_waits_for_the_end_of_the_web_applications(door: Door):
    """An early answer to a body that still comes is over, but its request is not."""
    async with await door.wire() as wire:
        request = post("/early", b"x" * 1000)
        wire.send(request[:-500])
        assert (await wire.answer()).body == b"early"
        wire.send(request[-500:] + get("/api/version"))
        assert (await wire.answer()).json == {"version": "0.33.0"}


async def test_a_failure_in_the_web_application_is_a_500_and_ends_the_connection(
    door: Door, caplog: pytest.LogCaptureFixture
):
    async with await door.wire() as wire:
        wire.send(get("/fail"))
        answer = await wire.answer()
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert await wire.rest() == b""


async def test_websockets_take_the_connection_over(door: Door):
    async with websockets.connect(f"ws://127.0.0.1:{door.address[1]}/live") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        assert door.front.connections == 0


async def test_a_websocket_may_follow_requests_on_the_same_connection_with_its_first_frame_at_once(door: Door):
    upgrade = get(
        "/live",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    masked_hi = b"\x81\x82\0\0\0\0hi"
    async with await door.wire() as wire:
        wire.send(get("/api/version") + upgrade + masked_hi)
        assert (await wire.answer()).status == 200
        assert (await wire.head())[0] == 101
        async with asyncio.timeout(10):
            assert await wire.reader.readexactly(4) == b"\x81\x02hi"


async def test_an_upgrade_that_nobody_speaks_is_plain_http(door: Door):
    """Java's client asks for HTTP/2 with every request."""
    async with await door.wire() as wire:
        h2c = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
        wire.send(post("/v1/chat/completions", chat(), *h2c))
        assert (await wire.answer()).status == 200
        wire.send(get("/api/version"))
        assert (await wire.answer()).status == 200


async def test_the_web_applications_keep_alive_timer_does_not_end_our_answer(engine: Engine):
    """Uvicorn arms a timer after its answer; a stream of ours on that connection must not be cut by it."""
    gate = asyncio.Event()

    async def slow(asked):
        asked.head(content_type="text/event-stream")
        asked.event("one")
        await gate.wait()
        asked.event("[DONE]")
        asked.last_chunk()

    engine.behaviour = slow
    async with opened(FleetTwin(worker(engine.url))) as door, await door.wire() as wire:
        wire.send(get("/hello"))
        await wire.answer()
        guest = next(iter(cast("Guests", door.front._guests)._state.connections))
        wire.send(post("/v1/chat/completions", chat(stream=True)))
        await wire.head()
        assert await wire.chunk() == b"data: one\n\n"
        assert cast("HttpToolsProtocol", guest).timeout_keep_alive_task is None
        gate.set()
        assert await wire.chunk() == b"data: [DONE]\n\n"


async def test_a_taken_port_is_named_and_does_not_hold_up_the_stop():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with opened(FleetTwin()) as door:
            front = Front(door.gateway, web, [("127.0.0.1", port)])
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                await front.start()
            async with asyncio.timeout(5):
                await front.stop(1)


async def test_connections_over_the_limit_are_told_so(engine: Engine):
    limits = GatewayLimits(connections_max=2)
    async with opened(FleetTwin(worker(engine.url)), limits=limits) as door:
        async with await door.wire() as first, await door.wire() as second, await door.wire() as third:
            for wire in (first, second):
                wire.send(get("/api/version"))
                assert (await wire.answer()).status == 200
            answer = await third.answer()
            assert (answer.status, answer.json["code"]) == (503, "too_many_connections")
        await eventually(lambda: door.front.connections == 0)
        async with await door.wire() as wire:
            wire.send(get("/api/version"))
            assert (await wire.answer()).status == 200


async def test_stop_lets_a_stream_end_and_closes_what_is_idle(engine: Engine):
    gate = asyncio.Event()

    async def slow(asked):
        asked.head(content_type="text/event-stream")
        asked.event("one")
        await gate.wait()
        asked.event("[DONE]")
        asked.last_chunk()

    engine.behaviour = slow
    async with (
        opened(FleetTwin(worker(engine.url))) as door,
        await door.wire() as idle,
        await door.wire() as busy,
    ):
        idle.send(get("/hello"))
        await idle.answer()
        busy.send(get("/hello"))
        await busy.answer()
        busy.send(post("/v1/chat/completions", chat(stream=True)))
        await busy.head()
        await busy.chunk()
        address = door.address
        stopping = asyncio.get_running_loop().create_task(door.front.stop(20))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        gate.set()
        assert await busy.chunk() == b"data: [DONE]\n\n"
        assert await busy.chunk() == b""
        await stopping
        assert await busy.rest() == b""


async def test_stop_ends_with_an_error_what_does_not_end_by_itself(engine: Engine):
    async def endless(asked):
        asked.head(content_type="text/event-stream")
        asked.event("one")
        await asyncio.Event().wait()

    engine.behaviour = endless
    async with opened(FleetTwin(worker(engine.url))) as door, await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat(stream=True)))
        await wire.head()
        await wire.chunk()
        await door.front.stop(0.05)
        assert b"Muster is stopping" in await wire.rest()
    await eventually(lambda: engine.answering == 0)
    assert door.reserved == {}


async def test_stop_without_start_and_twice_do_nothing(engine: Engine):
    async with opened(FleetTwin()) as door:
        await door.front.stop(1)
        await door.front.stop(1)
