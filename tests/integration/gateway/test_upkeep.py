"""Ollama's requests about models themselves, on a fleet of several Ollama servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import ollama
import pytest
from msgspec.structs import replace

from muster.domain.model import Model
from muster.placement.candidate import Candidate
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Asked, Engine
from tests.integration.gateway.fleet import BOTH, CHAT, FleetTwin, worker
from tests.integration.gateway.wire import Wire, get, post, post_chunked
from tests.waiting import eventually

DIGEST = "sha256:" + "ab" * 32
OTHER = Model(name="other:latest")
SHOWN = {"license": "Apache", "template": "{{ .Prompt }}", "details": {}, "model_info": {}, "capabilities": ["tools"]}


async def obliging(asked: Asked) -> None:
    """Do as an Ollama server does that has everything."""
    match asked.method, asked.path:
        case "POST", "/api/show":
            asked.reply(SHOWN)
        case "POST", "/api/pull" | "/api/push" | "/api/create":
            asked.head(content_type="application/x-ndjson")
            asked.line({"status": "pulling manifest"})
            for completed in (10, 100):
                asked.line({"status": "pulling ab", "digest": DIGEST, "total": 100, "completed": completed})
            asked.line({"status": "success"})
            asked.last_chunk()
        case "HEAD", _:
            asked.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        case "POST", path if path.startswith("/api/blobs/"):
            asked.head(201, length=0)
        case _:
            asked.head(length=0)


def refusing(status: int, text: str) -> Any:
    async def refuse(asked: Asked) -> None:
        asked.reply({"error": text}, status)

    return refuse


def failing_on_the_way(text: str) -> Any:
    async def fail(asked: Asked) -> None:
        asked.head(content_type="application/x-ndjson")
        asked.line({"status": "pulling manifest"})
        asked.line({"error": text})
        asked.last_chunk()

    return fail


class Servers:
    def __init__(self, door: Door, fleet: FleetTwin, engines: dict[str, Engine]) -> None:
        self.door = door
        self.fleet = fleet
        self.engines = engines

    def asked(self) -> dict[str, list[str]]:
        return {
            name: [f"{asked.method} {asked.path}" for asked in engine.requests]
            for name, engine in self.engines.items()
            if engine.requests
        }


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    """Serve `a` and `b` with a model that `c` has not; `d` is no Ollama server and has a model of its own."""
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(Engine(obliging)) for name in "abcd"}
        fleet = FleetTwin(
            worker(engines["a"].url, "a", CHAT, dialects=BOTH),
            worker(engines["b"].url, "b", CHAT, dialects=BOTH),
            worker(engines["c"].url, "c", OTHER, dialects=BOTH),
            worker(engines["d"].url, "d", Model(name="filed")),
        )
        door = await stack.enter_async_context(opened(fleet))
        yield Servers(door, fleet, engines)


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(servers.door.url)
    yield client
    await client._client.aclose()


def with_room(candidate: Candidate, *, memory_mb: int, disk_mb: int) -> Candidate:
    return replace(candidate, memory_free_mb=memory_mb, memory_total_mb=memory_mb, disk_free_mb=disk_mb)


# --- show ------------------------------------------------------------------------------------------------------------


async def test_a_model_is_shown_by_who_has_it(servers: Servers, client: ollama.AsyncClient) -> None:
    shown = await client.show("smollm2-135m:latest")

    assert (shown.license, shown.template, shown.capabilities) == ("Apache", "{{ .Prompt }}", ["tools"])
    (asked,) = servers.engines["a"].requests
    assert asked.json["model"] == "smollm2-135m", "under the name that the server itself uses"


async def test_what_nobody_shows_is_told_as_known_here(servers: Servers, client: ollama.AsyncClient) -> None:
    for engine in servers.engines.values():
        await engine.stop()
    assert (await client.show("smollm2-135m")).modelinfo == {
        "general.architecture": "llama",
        "llama.context_length": 8192,
    }
    with pytest.raises(ollama.ResponseError, match="not found") as missing:
        await client.show("nothing")
    assert missing.value.status_code == 404


# --- pull, push, create ----------------------------------------------------------------------------------------------


async def test_a_pull_renews_a_model_wherever_it_is_and_adds_up_its_bytes(
    servers: Servers, client: ollama.AsyncClient
) -> None:
    told = [(p.status, p.total, p.completed) async for p in await client.pull("smollm2-135m", stream=True)]

    assert servers.asked() == {"a": ["POST /api/pull"], "b": ["POST /api/pull"]}
    assert told[0] == ("pulling manifest", None, None)
    assert told[-2:] == [("pulling ab", 200, 200), ("success", None, None)]
    assert [status for status, *_ in told].count("success") == 1
    assert (await client.pull("smollm2-135m")).status == "success"


async def test_a_new_model_goes_where_there_is_most_room_for_it(servers: Servers, client: ollama.AsyncClient) -> None:
    a, b, c, d = servers.fleet.candidates()
    full = replace(with_room(b, memory_mb=80_000, disk_mb=0), models={})
    servers.fleet.become(
        with_room(a, memory_mb=8_000, disk_mb=9_000), full, with_room(c, memory_mb=24_000, disk_mb=9_000), d
    )

    assert (await client.pull("new")).status == "success"
    assert servers.asked() == {"c": ["POST /api/pull"]}


async def test_a_fleet_without_an_ollama_server_says_what_it_could_fetch(
    servers: Servers, client: ollama.AsyncClient
) -> None:
    servers.fleet.become(servers.fleet.candidates()[-1])
    with pytest.raises(ollama.ResponseError, match="new has no address from which a node could fetch it") as refused:
        await client.pull("new")
    assert refused.value.status_code == 503


async def test_a_caller_says_on_which_nodes_a_model_shall_be(servers: Servers) -> None:
    async with await servers.door.wire() as wire:
        wire.send(post("/api/pull?node=b,c", {"model": "new", "stream": False}))
        assert (await wire.answer()).json == {"status": "success"}
        assert set(servers.asked()) == {"b", "c"}
        wire.send(post("/api/pull", {"model": "new", "stream": False}, "X-Muster-Node: a"))
        assert (await wire.answer()).status == 200
        assert set(servers.asked()) == {"a", "b", "c"}
        wire.send(post("/api/pull?node=nowhere", {"model": "new"}))
        answer = await wire.answer()
        assert (answer.status, answer.json) == (503, {"error": "no Ollama server takes work on nowhere"})
        wire.send(post("/api/pull?node=*", {"model": "new", "stream": False}))
        assert (await wire.answer()).status == 200
        assert "d" not in servers.asked(), "which is no Ollama server"


async def test_a_pull_that_fails_before_a_word_has_the_servers_status(
    servers: Servers, client: ollama.AsyncClient
) -> None:
    servers.engines["c"].behaviour = refusing(400, "invalid model name")
    with pytest.raises(ollama.ResponseError, match="invalid model name") as refused:
        await client.pull("other")
    assert refused.value.status_code == 400


async def test_a_pull_that_fails_on_the_way_ends_with_a_line_that_says_so(servers: Servers) -> None:
    servers.engines["b"].behaviour = failing_on_the_way("file does not exist")
    async with await servers.door.wire() as wire:
        wire.send(post("/api/pull", {"name": "smollm2-135m"}))
        answer = await wire.answer()
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"error": "b/llama: file does not exist"}
    assert {"status": "success"} not in lines


async def test_a_server_that_is_lost_in_a_pull_is_told(servers: Servers, client: ollama.AsyncClient) -> None:
    async def lost(asked: Asked) -> None:
        asked.head(content_type="application/x-ndjson")
        asked.line({"status": "pulling manifest"})
        asked.close()

    servers.engines["c"].behaviour = lost
    with pytest.raises(ollama.ResponseError, match="c/llama closed the connection"):
        async for _ in await client.pull("other", stream=True):
            pass


async def test_who_leaves_a_pull_ends_it_on_the_servers(servers: Servers) -> None:
    async def endless(asked: Asked) -> None:
        asked.head(content_type="application/x-ndjson")
        asked.line({"status": "pulling manifest"})
        await asyncio.Event().wait()

    servers.engines["c"].behaviour = endless
    async with await servers.door.wire() as wire:
        wire.send(post("/api/pull", {"model": "other"}))
        await wire.head()
        await wire.chunk()
    await eventually(lambda: not servers.engines["c"].connections, 5.0)
    await eventually(lambda: servers.door.gateway.in_flight == 0, 5.0)


async def test_a_gateway_that_stops_ends_a_pull_with_a_line_that_says_so(servers: Servers) -> None:
    async def endless(asked: Asked) -> None:
        asked.head(content_type="application/x-ndjson")
        asked.line({"status": "pulling manifest"})
        await asyncio.Event().wait()

    servers.engines["c"].behaviour = endless
    async with await servers.door.wire() as wire:
        wire.send(post("/api/pull", {"model": "other"}))
        await wire.head()
        await wire.chunk()
        servers.door.gateway.end_all()
        assert json.loads(await wire.chunk()) == {"error": "Muster is stopping"}
    await eventually(lambda: not servers.engines["c"].connections, 5.0)


async def test_who_does_not_read_makes_the_server_wait(servers: Servers) -> None:
    line = json.dumps({"status": "pulling ab", "digest": DIGEST, "total": 1, "pad": "x" * 8192}).encode() + b"\n"
    sent = 0

    async def talkative(asked: Asked) -> None:
        nonlocal sent
        asked.head(content_type="application/x-ndjson")
        while True:
            for _ in range(64):
                asked.chunk(line)
            sent += 64 * len(line)
            await asyncio.wait_for(asked.written(), 0.5)  # until it is held up for so long

    servers.engines["c"].behaviour = talkative
    async with Wire(*await asyncio.open_connection(*servers.door.address)) as wire:  # which holds little itself
        wire.send(post("/api/pull", {"model": "other"}))
        await wire.head()
        await eventually(lambda: servers.engines["c"].answering == 0, 15.0)
        assert sent < 64 * 1024 * 1024


async def test_a_fault_of_ours_ends_the_connection(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("muster.gateway.models.ollama_upkeep.having_model", broken)
    async with await servers.door.wire() as wire:
        wire.send(post("/api/pull", {"model": "new"}))
        with suppress(ConnectionError):
            assert await wire.rest() == b""
    assert servers.door.gateway.in_flight == 0


async def test_a_push_goes_from_one_that_has_the_model(servers: Servers, client: ollama.AsyncClient) -> None:
    assert (await client.push("smollm2-135m:latest")).status == "success"
    assert servers.asked() == {"a": ["POST /api/push"]}
    with pytest.raises(ollama.ResponseError, match="model 'nothing' not found"):
        await client.push("nothing")


async def test_a_model_is_made_where_that_is_which_it_is_made_from(
    servers: Servers, client: ollama.AsyncClient
) -> None:
    assert (await client.create("mine", from_="other", system="Be short.")).status == "success"
    assert servers.asked() == {"c": ["POST /api/create"]}
    assert servers.engines["c"].requests[0].json["system"] == "Be short."


# --- delete and copy -------------------------------------------------------------------------------------------------


async def test_a_model_is_deleted_and_copied_wherever_it_is(servers: Servers, client: ollama.AsyncClient) -> None:
    assert (await client.copy("smollm2-135m", "twin")).status == "success"
    assert (await client.delete("smollm2-135m")).status == "success"
    assert servers.asked() == {name: ["POST /api/copy", "DELETE /api/delete"] for name in "ab"}
    with pytest.raises(ollama.ResponseError, match="model 'nothing' not found") as missing:
        await client.delete("nothing")
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="kept by d/llama, no Ollama server"):
        await client.delete("filed")


async def test_what_is_done_everywhere_is_answered_without_a_word(servers: Servers) -> None:
    body = {"source": "smollm2-135m", "destination": "twin", "model": "smollm2-135m"}
    async with await servers.door.wire() as wire:
        for request in (post("/api/copy", body), post("/api/delete", body).replace(b"POST", b"DELETE", 1)):
            wire.send(request)
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", "application/json")


async def test_who_could_not_delete_is_named(servers: Servers, client: ollama.AsyncClient) -> None:
    servers.engines["a"].behaviour = refusing(404, "model not found")  # gone is gone
    servers.engines["b"].behaviour = refusing(500, "the disk is broken")
    with pytest.raises(ollama.ResponseError, match="b/llama: the disk is broken") as failed:
        await client.delete("smollm2-135m")
    assert failed.value.status_code == 500


# --- blobs -----------------------------------------------------------------------------------------------------------


async def test_all_blobs_of_a_caller_go_to_the_server_that_makes_its_model(servers: Servers) -> None:
    async with await servers.door.wire() as wire:
        wire.send(get(f"/api/blobs/{DIGEST}", method="HEAD"))
        assert (await wire.answer(head_only=True)).status == 200
        wire.send(post(f"/api/blobs/{DIGEST}", b"weights"))
        assert (await wire.answer()).status == 201
        wire.send(post_chunked(f"/api/blobs/{DIGEST}", ["weights"] * 9, pieces=4))
        assert (await wire.answer()).status == 201
        wire.send(post("/api/create", {"model": "mine", "files": {"m.gguf": DIGEST}, "stream": False}))
        assert (await wire.answer()).json == {"status": "success"}
    ((_, asked),) = servers.asked().items()
    blob = f"/api/blobs/{DIGEST}"
    assert asked == [f"HEAD {blob}", f"POST {blob}", f"POST {blob}", "POST /api/create"]
    (engine,) = (engine for engine in servers.engines.values() if engine.requests)
    assert engine.requests[1].body == b"weights"
    assert json.loads(engine.requests[2].body) == ["weights"] * 9


async def test_a_blob_larger_than_any_other_request_is_passed_on_as_it_comes(servers: Servers) -> None:
    size, piece = 48 * 1024 * 1024, b"x" * (1024 * 1024)
    assert size > servers.door.gateway.limits.body_bytes_max
    for engine in servers.engines.values():
        engine.counts_bodies_only = True
    async with await servers.door.wire() as wire:
        wire.send(f"POST /api/blobs/{DIGEST} HTTP/1.1\r\nhost: m\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(size // len(piece)):
            wire.send(piece)
            await wire.writer.drain()
        assert (await wire.answer()).status == 201
    (asked,) = (asked for engine in servers.engines.values() for asked in engine.requests)
    assert asked.body_bytes == size


async def test_a_blob_that_is_refused_ends_the_upload(servers: Servers) -> None:
    async def full(asked: Asked) -> None:
        asked.reply({"error": "no space left on device"}, 500)

    for engine in servers.engines.values():
        engine.behaviour = full
        engine.answers_heads = True
    async with await servers.door.wire() as wire:
        wire.send(f"POST /api/blobs/{DIGEST} HTTP/1.1\r\nhost: m\r\ncontent-length: 1000000\r\n\r\nxxxx".encode())
        answer = await wire.answer()
        assert (answer.status, answer.json) == (500, {"error": "no space left on device"})
        assert await wire.rest() == b""


async def test_a_blob_without_a_digest_or_a_server_is_refused(servers: Servers) -> None:
    async with await servers.door.wire() as wire:
        for path in ("x", f"x/{DIGEST}", f"../blobs/{DIGEST}"):
            wire.send(get(f"/api/blobs/{path}", method="HEAD"))
            assert (await wire.answer(head_only=True)).status == 400
        servers.fleet.become()
        wire.send(get(f"/api/blobs/{DIGEST}", method="HEAD"))
        assert (await wire.answer(head_only=True)).status == 503


async def test_who_leaves_in_the_middle_of_a_blob_leaves_nothing_behind(servers: Servers) -> None:
    async with await servers.door.wire() as wire:
        wire.send(f"POST /api/blobs/{DIGEST} HTTP/1.1\r\nhost: m\r\ncontent-length: 1000000\r\n\r\nxxxx".encode())
        await eventually(lambda: any(engine.connections for engine in servers.engines.values()), 5.0)
    await eventually(lambda: not any(engine.connections for engine in servers.engines.values()), 5.0)
    assert servers.door.gateway.in_flight == 0
