"""The requests that Open WebUI's backend makes, in its words and through the library that it uses (aiohttp)."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.integration.gateway.door import Door, only, opened
from tests.integration.gateway.engine import TOKENS, Engine
from tests.integration.gateway.fleet import FleetTwin, worker

TEXT = "".join(TOKENS)
MODEL = "smollm2-135m"
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer right",
    "X-OpenWebUI-User-Name": "Ada%20Lovelace",
    "X-OpenWebUI-User-Id": "u-1",
    "X-OpenWebUI-User-Email": "ada@example.com",
    "X-OpenWebUI-User-Role": "admin",
}
CHAT = {"messages": [{"role": "user", "content": "Tell."}], "model": MODEL}


@pytest.fixture
async def session(engine: Engine) -> AsyncIterator[aiohttp.ClientSession]:
    async with opened(FleetTwin(worker(engine.url)), authenticate=only(b"right")) as door, _session(door) as session:
        yield session


def _session(door: Door) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(door.url, headers=HEADERS, timeout=aiohttp.ClientTimeout(total=20))


async def test_it_verifies_a_connection_and_lists_what_there_is(session: aiohttp.ClientSession) -> None:
    async with session.get("/api/version") as answer:
        assert tuple(map(int, (await answer.json())["version"].split("."))) >= (0, 1, 0)
    async with session.get("/api/tags") as answer:
        listed = {model["model"]: model for model in (await answer.json())["models"]}
    assert {"name", "model", "digest", "details"} <= listed[MODEL].keys()
    async with session.get("/api/ps") as answer:
        running = {model["name"]: model["expires_at"] for model in (await answer.json())["models"]}
    assert running.keys() == {MODEL}
    async with session.get("/v1/models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["minilm:latest", MODEL]


async def test_it_chats_with_ollama_by_lines(session: aiohttp.ClientSession, engine: Engine) -> None:
    payload = CHAT | {"stream": True, "options": {"temperature": 0.2, "num_ctx": 4096}, "keep_alive": "5m"}
    async with session.post("/api/chat", data=json.dumps(payload)) as answer:
        assert answer.content_type == "application/x-ndjson"
        lines = [json.loads(line) async for line in answer.content]
    assert "".join(line["message"]["content"] for line in lines) == TEXT
    assert lines[-1]["done"]
    told = engine.requests[0].headers
    assert (told["x-openwebui-user-id"], told.get("authorization")) == ("u-1", None)


async def test_it_unloads_a_model_and_reads_the_answer_as_json(session: aiohttp.ClientSession) -> None:
    payload = {"model": f"{MODEL}:latest", "keep_alive": 0, "prompt": ""}
    async with session.post("/api/generate", data=json.dumps(payload)) as answer:
        assert (await answer.json())["done_reason"] == "unload"


async def test_it_embeds_for_its_documents(session: aiohttp.ClientSession) -> None:
    async with session.post(
        "/api/embed", json={"input": ["a", "b"], "model": "minilm:latest", "truncate": True}
    ) as answer:
        assert len((await answer.json())["embeddings"]) == 2
    async with session.post("/v1/embeddings", json={"input": ["a"], "model": "minilm:latest"}) as answer:
        assert len((await answer.json())["data"]) == 1


async def test_it_chats_with_openai_by_events(session: aiohttp.ClientSession) -> None:
    payload = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    async with session.post("/v1/chat/completions", data=json.dumps(payload)) as answer:
        assert answer.content_type == "text/event-stream"
        events = [line async for line in answer.content if line.startswith(b"data: ")]
    assert events[-1] == b"data: [DONE]\n"
    assert json.loads(events[-2][6:])["usage"]["completion_tokens"] == len(TOKENS)


async def test_it_reads_the_sentence_of_an_error(session: aiohttp.ClientSession) -> None:
    async with session.post("/api/show", data=json.dumps({"model": "nothing"})) as answer:
        assert (answer.status, await answer.json()) == (404, {"error": "model 'nothing' not found"})
    async with session.delete("/api/delete", data=json.dumps({"model": "nothing", "name": "nothing"})) as answer:
        assert (answer.status, (await answer.json())["error"]) == (404, "model 'nothing' not found")
    async with session.post("/api/pull", data=json.dumps({"model": "nothing", "insecure": True})) as answer:
        assert answer.status == 503
        assert "no Ollama server" in (await answer.json())["error"]
    async with session.get("/api/version", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401
        assert "error" in await answer.json()
