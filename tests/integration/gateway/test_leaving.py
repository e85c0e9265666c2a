"""Callers who leave, and callers who do not read: no engine works on for nobody, no buffer grows without bound."""

import asyncio
import random
import socket
from typing import cast

import pytest

from muster.gateway import GatewayLimits
from tests.integration.gateway.door import opened
from tests.integration.gateway.engine import Asked, Engine, hang, llama, reset, stall_after
from tests.integration.gateway.fleet import BOTH, OPENAI_ONLY, FleetTwin, worker
from tests.integration.gateway.wire import Wire, chat, get, post
from tests.waiting import eventually

CALLERS = 300
MEGABYTE = 2**20


async def ticking(asked: Asked) -> None:
    asked.head(content_type="text/event-stream")
    while True:
        asked.event({"choices": [{"delta": {"content": "tick"}}]})
        await asked.written()
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
@pytest.mark.parametrize("goodbye", ["abort", "close", "half close"])
async def test_hundreds_who_leave_at_once_leave_no_stream_behind(path: str, goodbye: str):
    async with Engine(stall_after(2)) as engine, opened(FleetTwin(worker(engine.url))) as door:
        wires = [await door.wire() for _ in range(CALLERS)]
        for wire in wires:
            wire.send(post(path, chat(stream=True)))
        for wire in wires:
            assert (await wire.head())[0] == 200
        assert engine.answering == CALLERS
        assert door.reserved == {"node-a/llama": CALLERS}

        for wire in wires:
            if goodbye == "abort":
                wire.abort()
            elif goodbye == "close":
                wire.writer.close()
            else:
                wire.writer.write_eof()
        await eventually(lambda: engine.answering == 0)
        await eventually(lambda: door.front.connections == 0)
        assert door.reserved == {}
        assert {record.status for record in door.finished} == {499}
        for wire in wires:
            wire.abort()


async def test_who_leaves_before_the_answer_begins_is_noticed_too():
    async with Engine(hang) as engine, opened(FleetTwin(worker(engine.url))) as door:
        async with await door.wire() as wire:
            wire.send(post("/v1/chat/completions", chat()))
            await eventually(lambda: engine.answering == 1)
        await eventually(lambda: engine.answering == 0)
        assert door.reserved == {}


async def test_who_leaves_while_a_connection_is_being_made_costs_nothing(engine: Engine):
    async with opened(FleetTwin(worker(engine.url))) as door:
        for _ in range(50):
            wire = await door.wire()
            wire.send(post("/v1/chat/completions", chat()))
            await asyncio.sleep(0)
            wire.abort()
        await eventually(lambda: door.front.connections == 0)
        await eventually(lambda: door.reserved == {})


async def test_reservations_return_to_zero_after_thousands_of_requests_that_end_in_every_way():
    rng = random.Random(11)

    async def moody(asked: Asked) -> None:
        await rng.choice((llama, llama, reset, stall_after(1), ticking))(asked)

    async def caller(door_address: tuple[str, int]) -> None:
        for _ in range(25):
            async with await Wire.open(door_address) as wire:
                path = rng.choice(("/v1/chat/completions", "/api/chat", "/v1/chat/completions", "/api/generate"))
                wire.send(post(path, chat(stream=rng.random() < 0.7, prompt="x"))[: rng.choice((40, 10_000, 10_000))])
                for _ in range(rng.randrange(30)):
                    await asyncio.sleep(0)
                if rng.random() < 0.3:
                    await wire.reader.read(rng.randrange(1, 500))

    limits = GatewayLimits(
        first_byte_timeout_s=0.2,
        idle_timeout_s=0.2,
        head_timeout_s=0.2,
        body_idle_timeout_s=0.2,
        probe_timeout_s=0.2,
    )
    async with Engine(moody) as one, Engine(moody) as two:
        fleet = FleetTwin(worker(one.url, "a"), worker(two.url, "b", dialects=BOTH))
        async with opened(fleet, limits=limits) as door:
            async with asyncio.TaskGroup() as callers:
                for _ in range(80):
                    callers.create_task(caller(door.address))
            await eventually(lambda: door.front.connections == 0)
            assert door.reserved == {}
            assert door.gateway.in_flight == 0
            await eventually(lambda: one.answering == two.answering == 0)


async def test_a_caller_that_reads_slowly_slows_the_engine_down():
    sent = 0

    async def flood(asked: Asked) -> None:
        nonlocal sent
        asked.head(content_type="text/event-stream")
        for _ in range(200):
            asked.chunk(b"x" * MEGABYTE + b"\n")
            sent += 1
            await asked.written()
        asked.event("[DONE]")
        asked.last_chunk()

    async with Engine(flood) as engine, opened(FleetTwin(worker(engine.url))) as door:
        reader_limit = 2**16
        reader, writer = await asyncio.open_connection(*door.address, limit=reader_limit)
        writer.write(post("/v1/chat/completions", chat(stream=True)))
        seen = -1
        while sent != seen:  # until nothing more gets through
            seen = sent
            for _ in range(2000):
                await asyncio.sleep(0)
        assert 0 < sent < 60, "what is not read stays in the engine"
        received = 0
        while data := await reader.read(MEGABYTE):
            received += len(data)
            if data.endswith(b"0\r\n\r\n"):
                break
        assert received > 200 * MEGABYTE
        writer.close()


@pytest.mark.parametrize("dialects", [OPENAI_ONLY, BOTH])
async def test_a_caller_that_does_not_read_at_all_is_let_go(dialects):
    async with Engine(ticking) as engine:
        fleet = FleetTwin(worker(engine.url, dialects=dialects))
        async with opened(fleet, limits=GatewayLimits(idle_timeout_s=0.1)) as door, await door.wire() as wire:
            cast("asyncio.Transport", wire.writer.transport).pause_reading()
            wire.send(post("/v1/chat/completions", chat(stream=True)))
            await eventually(lambda: engine.answering == 1)
            await eventually(lambda: engine.answering == 0)
            assert door.reserved == {}


async def test_what_is_sent_ahead_is_not_read_without_bound(engine: Engine):
    gate = asyncio.Event()

    async def later(asked: Asked) -> None:
        await gate.wait()
        await llama(asked)

    engine.behaviour = later
    async with opened(FleetTwin(worker(engine.url))) as door, await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat()))
        await eventually(lambda: engine.answering == 1)
        ahead = 20_000
        wire.send(get("/api/version") * ahead)
        connection = next(iter(door.front._connections))
        await eventually(lambda: connection._reading_paused)
        assert connection._reader.pending < 4 * MEGABYTE
        gate.set()
        assert (await wire.answer()).status == 200
        for _ in range(ahead):
            assert (await wire.answer()).json == {"version": "0.33.0"}


async def test_idle_connections_to_engines_are_closed_before_the_engine_would(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), limits=GatewayLimits(upstream_idle_s=0.1)) as door:
        async with await door.wire() as wire:
            wire.send(post("/v1/chat/completions", chat()))
            await wire.answer()
        assert len(engine.connections) == 1
        await eventually(lambda: not engine.connections)
        await eventually(lambda: door.gateway._upstreams.connections == 0)


async def test_small_writes_go_out_at_once(door, engine: Engine):
    """Nagle's algorithm would hold a token back until the one before it was acknowledged."""
    async with await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat()))
        await wire.answer()
        connection = next(iter(door.front._connections))
        endpoint = door.gateway._upstreams.endpoint(engine.url)
        for transport in (connection.transport, next(iter(endpoint.open)).transport):
            option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert option
