"""A process that has the gateway alone, before one that has everything."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import websockets

from muster.gateway import Front
from muster.gateway.tunnel import Tunnels
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Wire, chat, get, post
from tests.waiting import eventually

TEXT = "".join(TOKENS)
LARGE = b"x" * 4_000_000


@asynccontextmanager
async def before(door: Door, address: tuple[str, int]) -> AsyncIterator[Front]:
    """Open a front of another gateway that brings its guests to `address`."""
    async with opened(FleetTwin(*door.gateway._fleet.candidates())) as other:
        front = Front(other.gateway, Tunnels(address), [("127.0.0.1", 0)], shared=True)
        await front.start()
        try:
            yield front
        finally:
            await front.stop(1.0)


async def test_who_asks_for_anything_else_is_handed_on_with_the_connection(door: Door, engine: Engine) -> None:
    async with before(door, door.address) as front:
        async with await Wire.open(front.addresses[0]) as wire:
            wire.send(post("/v1/chat/completions", chat()))
            assert (await wire.answer()).json["choices"][0]["message"]["content"] == TEXT
            assert (front.connections, door.front.connections) == (1, 0), "this is its own"
            wire.send(get("/hello"))
            assert (await wire.answer()).body == b"/hello|"
            assert (front.connections, door.front.connections) == (0, 1)
            wire.send(post("/echo", LARGE))
            assert (await wire.answer()).body == b"/echo|" + LARGE
            wire.send(get("/ticks"))
            assert (await wire.answer()).body == b"0;1;2;"
            wire.send(post("/v1/chat/completions", chat()))
            assert (await wire.answer()).json["choices"][0]["message"]["content"] == TEXT
        await eventually(lambda: door.front.connections == 0)
        assert len(engine.requests) == 2


async def test_a_websocket_goes_through(door: Door) -> None:
    async with (
        before(door, door.address) as front,
        websockets.connect(f"ws://127.0.0.1:{front.addresses[0][1]}/live") as connection,
    ):
        await connection.send("hello")
        assert await connection.recv() == "hello"


async def test_without_the_first_process_a_guest_hears_so(door: Door) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with before(door, nobody.getsockname()) as front, await Wire.open(front.addresses[0]) as wire:
            wire.send(get("/hello"))
            answer = await wire.answer()
            assert (answer.status, answer.json["code"]) == (503, "shutting_down")


async def test_what_shares_a_port_shares_it_with_its_own_kind_alone(engine: Engine) -> None:
    async with opened(FleetTwin(worker(engine.url))) as door:
        private = ("127.0.0.1", 0)
        first = Front(door.gateway, Tunnels(private), [("127.0.0.1", 0)], shared=True, private=private)
        await first.start()
        assert first.private_address not in first.addresses
        again = Front(door.gateway, Tunnels(private), first.addresses, shared=True, private=private)
        with pytest.raises(OSError, match="cannot listen"):
            await again.start()
        beside = Front(door.gateway, Tunnels(first.private_address), first.addresses, shared=True)
        await beside.start()
        await beside.stop(1.0)
        await first.stop(1.0)
