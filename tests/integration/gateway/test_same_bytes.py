"""What passes through is what the engine said: compared with asking the engine directly by another client."""

import json

import aiohttp
import pytest

from tests.integration.gateway.door import opened
from tests.integration.gateway.engine import Asked, Engine, ollama
from tests.integration.gateway.fleet import BOTH, FleetTwin, worker
from tests.integration.gateway.wire import chat

LONG = "ж" * 40_000

REQUESTS = [
    ("/v1/chat/completions", chat()),
    ("/v1/chat/completions", chat(stream=True)),
    ("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}, temperature=0.1)),
    ("/v1/chat/completions", chat(padding=LONG)),
    ("/v1/completions", {"model": "smollm2-135m", "prompt": "Tell."}),
    ("/v1/completions", {"model": "smollm2-135m", "prompt": "Tell.", "stream": True}),
    ("/v1/embeddings", {"model": "minilm:latest", "input": ["a", "b"]}),
    ("/api/chat", chat()),
    ("/api/chat", chat(stream=True)),
]


@pytest.mark.parametrize(("path", "content"), REQUESTS)
async def test_body_status_and_type_are_the_engines_own(path: str, content: dict[str, object]):
    async with Engine(ollama) as engine, opened(FleetTwin(worker(engine.url, dialects=BOTH))) as door:
        async with aiohttp.ClientSession() as session:
            async with session.post(engine.url + path, json=content) as direct:
                expected = (direct.status, direct.headers["content-type"], await direct.read())
            async with session.post(door.url + path, json=content) as through:
                assert (through.status, through.headers["content-type"], await through.read()) == expected
        assert engine.requests[0].body == engine.requests[1].body


async def test_only_the_models_name_is_changed_when_the_engine_knows_it_by_another():
    async with Engine(ollama) as engine, opened(FleetTwin(worker(engine.url, dialects=BOTH))) as door:
        body = (
            b'{"z": 1.50, "model" :"minilm", "input":["\\u00e9"],  "n":{"model":"minilm"}, "big":123456789012345678901}'
        )
        async with aiohttp.ClientSession() as session, session.post(door.url + "/v1/embeddings", data=body) as answer:
            assert answer.status == 200
        sent = engine.requests[0].body
        assert json.loads(sent) == json.loads(body) | {"model": "minilm:latest"}
        assert b"1.50" in sent
        assert b"123456789012345678901" in sent


@pytest.mark.parametrize("size", [1, 7, 4096, 65_536, 1_000_003])
async def test_a_stream_arrives_whole_however_the_engine_cuts_it(size: int):
    text = b"".join(b"data: %d %b\n\n" % (n, b"y" * (n % 97)) for n in range(min(2000, 20 * size)))
    text += b"data: [DONE]\n\n"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    async def torn(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        for piece in pieces:
            asked.chunk(piece)
            await asked.written()
        asked.last_chunk()

    async with (
        Engine(torn) as engine,
        opened(FleetTwin(worker(engine.url))) as door,
        aiohttp.ClientSession() as session,
        session.post(door.url + "/v1/chat/completions", json=chat(stream=True)) as answer,
    ):
        assert await answer.read() == b"".join(pieces)


async def test_a_compressed_answer_passes_untouched():
    squeezed = bytes(range(256)) * 50

    async def compressed(asked: Asked) -> None:
        asked.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: x-odd\r\n")
        asked.raw(b"transfer-encoding: chunked\r\n\r\n")
        asked.chunk(squeezed)
        asked.last_chunk()

    async with (
        Engine(compressed) as engine,
        opened(FleetTwin(worker(engine.url))) as door,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(door.url + "/v1/chat/completions", json=chat(stream=True)) as answer,
    ):
        assert answer.headers["content-encoding"] == "x-odd"
        assert await answer.read() == squeezed
