"""The official Python clients of both dialects, against an engine that speaks OpenAI's only."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.integration.gateway.door import Door, only, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, cut_after, reset
from tests.integration.gateway.fleet import FleetTwin, worker

TEXT = "".join(TOKENS)
MODEL = "smollm2-135m"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SAY: list[Any] = [{"role": "user", "content": "Tell."}]


@pytest.fixture
async def openai_client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def ollama_client(door: Door) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(door.url)
    yield client
    await client._client.aclose()


# --- openai ----------------------------------------------------------------------------------------------------------


async def test_openai_lists_and_retrieves_models(openai_client: openai.AsyncOpenAI):
    assert [model.id async for model in openai_client.models.list()] == ["minilm:latest", MODEL]
    assert (await openai_client.models.retrieve("minilm")).id == "minilm:latest"
    with pytest.raises(openai.NotFoundError):
        await openai_client.models.retrieve("nothing")


async def test_openai_chats(openai_client: openai.AsyncOpenAI):
    whole = await openai_client.chat.completions.create(model=MODEL, messages=SAY)
    assert whole.choices[0].message.content == TEXT
    stream = await openai_client.chat.completions.create(
        model=MODEL, messages=SAY, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(TOKENS)


async def test_openai_completes_and_embeds(openai_client: openai.AsyncOpenAI):
    completion = await openai_client.completions.create(model=MODEL, prompt="Tell.")
    assert completion.choices[0].text == TEXT
    embedding = await openai_client.embeddings.create(model="minilm", input=["a", "b"], encoding_format="float")
    assert [e.embedding for e in embedding.data] == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]


async def test_openai_raises_its_own_errors(openai_client: openai.AsyncOpenAI, engine: Engine):
    with pytest.raises(openai.NotFoundError) as not_found:
        await openai_client.chat.completions.create(model="nothing", messages=SAY)
    assert not_found.value.code == "model_not_found"
    assert not_found.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        await openai_client.chat.completions.create(model=MODEL, messages=[])
    engine.behaviour = cut_after(2)
    stream = await openai_client.chat.completions.create(model=MODEL, messages=SAY, stream=True)
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="closed the connection"):
        pieces.extend([chunk.choices[0].delta.content or "" async for chunk in stream])
    engine.behaviour = reset
    with pytest.raises(openai.InternalServerError):
        await openai_client.chat.completions.create(model=MODEL, messages=SAY)


async def test_openai_sends_its_token_and_none_is_told_apart(engine: Engine):
    fleet = FleetTwin(worker(engine.url))
    async with opened(fleet, authenticate=only(b"right")) as door:
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="right", max_retries=0) as client:
            assert (await client.chat.completions.create(model=MODEL, messages=SAY)).choices
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model=MODEL, messages=SAY)


# --- anthropic -------------------------------------------------------------------------------------------------------


async def test_anthropic_writes_as_a_stream(door: Door, engine: Engine):
    async def write(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": MODEL}
        usage = {"input_tokens": 7, "output_tokens": 0}
        events: tuple[dict[str, Any], ...] = (
            {"type": "message_start", "message": message | {"stop_reason": None, "usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in TOKENS),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        )
        for event in events:
            asked.chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        asked.last_chunk()

    engine.behaviour = write
    async with anthropic.AsyncAnthropic(base_url=door.url, api_key="none", max_retries=0) as client:
        async with client.messages.stream(model=MODEL, max_tokens=9, messages=SAY) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
        engine.behaviour = cut_after(2)
        with pytest.raises(anthropic.APIError, match="closed the connection"):
            async with client.messages.stream(model=MODEL, max_tokens=9, messages=SAY) as stream:
                await stream.until_done()


# --- ollama ----------------------------------------------------------------------------------------------------------


async def test_ollama_lists_shows_and_tells_what_is_loaded(ollama_client: ollama.AsyncClient):
    listed = (await ollama_client.list()).models
    assert [model.model for model in listed] == ["minilm:latest", MODEL]
    assert listed[1].size == 98_362_432
    assert listed[1].details is not None
    assert listed[1].details.quantization_level == "Q4_1"
    running = (await ollama_client.ps()).models
    assert [(model.model, model.context_length) for model in running] == [(MODEL, 8192)]
    shown = await ollama_client.show(f"{MODEL}:latest")
    assert shown.modelinfo == {"general.architecture": "llama", "llama.context_length": 8192}
    assert shown.capabilities == ["completion"]
    with pytest.raises(ollama.ResponseError, match="model 'nothing' not found") as missing:
        await ollama_client.show("nothing")
    assert missing.value.status_code == 404


async def test_ollama_chats(ollama_client: ollama.AsyncClient):
    whole = await ollama_client.chat(MODEL, SAY)
    assert whole.message.content == TEXT
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert (whole.prompt_eval_count, whole.eval_count) == (7, len(TOKENS))
    assert (whole.prompt_eval_duration, whole.eval_duration) == (12_500_000, 50_000_000)
    pieces = [piece async for piece in await ollama_client.chat(MODEL, SAY, stream=True)]
    assert [piece.message.content for piece in pieces] == [*TOKENS, ""]
    assert [piece.done for piece in pieces] == [False] * len(TOKENS) + [True]
    assert pieces[-1].eval_count == len(TOKENS)
    assert pieces[-1].total_duration is not None


async def test_ollama_chats_with_pictures_tools_and_a_schema(ollama_client: ollama.AsyncClient, engine: Engine):
    tool = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}}}
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    await ollama_client.chat(
        MODEL,
        [
            {"role": "user", "content": "See?", "images": [PNG]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_name": "add"},
        ],
        tools=[tool],
        format={"type": "object"},
        options={"num_predict": 5, "temperature": 0.5, "num_ctx": 4096},
        keep_alive="5m",
        think=False,
    )

    asked = engine.requests[0].json
    picture = asked["messages"][0]["content"][1]["image_url"]["url"]
    assert picture == "data:image/png;base64," + base64.b64encode(PNG).decode()
    called = asked["messages"][1]["tool_calls"][0]
    assert called["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert asked["messages"][2]["tool_call_id"] == called["id"]
    assert asked["tools"][0]["function"]["name"] == "add"
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (asked["max_tokens"], asked["temperature"]) == (5, 0.5)
    assert not {"num_ctx", "keep_alive", "options", "format"} & set(asked)


async def test_ollama_gets_tool_calls_whole(ollama_client: ollama.AsyncClient, engine: Engine):
    async def calls(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        first = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": ""}}
        asked.event({"choices": [{"delta": {"tool_calls": [first]}}]})
        for piece in ('{"a"', ":1}"):
            asked.event({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]})
        asked.event({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
        asked.event("[DONE]")
        asked.last_chunk()

    engine.behaviour = calls
    pieces = [piece async for piece in await ollama_client.chat(MODEL, SAY, stream=True)]
    assert pieces[0].message.tool_calls is not None
    function = pieces[0].message.tool_calls[0].function
    assert (function.name, function.arguments) == ("add", {"a": 1})
    assert pieces[-1].done


async def test_ollama_generates(ollama_client: ollama.AsyncClient, engine: Engine):
    whole = await ollama_client.generate(MODEL, "Tell.", system="Be short.")
    assert whole.response == TEXT
    assert [message["role"] for message in engine.requests[0].json["messages"]] == ["system", "user"]
    raw = [piece async for piece in await ollama_client.generate(MODEL, "Once", raw=True, stream=True)]
    assert "".join(piece.response or "" for piece in raw) == TEXT
    assert engine.requests[1].path == "/v1/completions"
    assert engine.requests[1].json["prompt"] == "Once"


async def test_ollama_loads_and_unloads_a_model_without_asking_the_engine(
    ollama_client: ollama.AsyncClient, engine: Engine
):
    assert (await ollama_client.generate(MODEL)).done_reason == "load"
    assert (await ollama_client.generate(MODEL, keep_alive=0)).done_reason == "unload"
    assert (await ollama_client.chat(MODEL, [])).done_reason == "load"
    assert [piece.done_reason async for piece in await ollama_client.chat(MODEL, [], stream=True)] == ["load"]
    assert engine.requests == []


async def test_ollama_embeds(ollama_client: ollama.AsyncClient):
    answer = await ollama_client.embed("minilm", ["a", "b"])
    assert answer.embeddings == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
    assert answer.prompt_eval_count == 3
    assert list((await ollama_client.embeddings("minilm", "a")).embedding) == [0.5, -0.25, 0.0]


async def test_ollama_raises_on_a_broken_stream(ollama_client: ollama.AsyncClient, engine: Engine):
    engine.behaviour = cut_after(2)
    with pytest.raises(ollama.ResponseError, match="closed the connection"):
        async for _ in await ollama_client.chat(MODEL, SAY, stream=True):
            pass
