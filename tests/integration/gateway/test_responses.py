"""OpenAI's responses of engines that only chat: asked in a chat, told as a response."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, cut_after, llama
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, post

MODEL = "smollm2-135m"
PATH = "/v1/responses"
TEXT = "".join(TOKENS)
TOOL: Any = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}


async def chats_only(asked: Asked) -> None:
    if asked.path == PATH:
        asked.reply({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404)
    else:
        await llama(asked)


async def serves(asked: Asked) -> None:
    asked.reply({"id": "resp_own", "object": "response", "output": []})


@pytest.fixture
def engine_behaviour(engine: Engine) -> Engine:
    engine.behaviour = chats_only
    return engine


@pytest.fixture
async def client(door: Door, engine_behaviour: Engine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def asked_of(door: Door, body: dict[str, Any]) -> Answer:
    async with await door.wire() as wire:
        wire.send(post(PATH, {"model": MODEL, "input": "Tell."} | body))
        return await wire.answer()


def paths(engine: Engine) -> list[str]:
    return [asked.path for asked in engine.requests]


async def test_openai_has_a_response_of_an_engine_that_only_chats(
    client: openai.AsyncOpenAI, door: Door, engine: Engine
) -> None:
    whole = await client.responses.create(model=MODEL, input="Tell.", instructions="Be brief.")
    assert (whole.output_text, whole.status, whole.instructions) == (TEXT, "completed", "Be brief.")
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (7, len(TOKENS))
    talk: list[Any] = [*whole.output, {"role": "user", "content": "On."}]
    again = await client.responses.create(model=MODEL, input=talk)
    assert again.output_text == TEXT

    chat = "/v1/chat/completions"
    assert paths(engine) == [PATH, chat, chat]  # it is asked for what it has not only once
    assert engine.requests[-1].json["messages"] == [
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "On."},
    ]
    assert door.reserved == {}
    assert door.gateway.stats().upstream_failures_total == 0
    assert [one.status for one in door.finished] == [200, 200]
    use = door.finished[0].use
    assert use is not None
    assert (use.prompt_tokens, use.completion_tokens, use.estimated) == (7, len(TOKENS), False)


async def test_openai_follows_the_events_of_a_response(client: openai.AsyncOpenAI, door: Door) -> None:
    async with client.responses.stream(model=MODEL, input="Tell.") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert final.output_text == TEXT
    answer = await asked_of(door, {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-muster-worker"] == "node-a/llama"
    assert [one.begun_s is not None for one in _attempts(door, answer)] == [True]


def _attempts(door: Door, answer: Answer) -> list[Any]:
    view = door.gateway.explain(answer.headers["x-correlation-id"])
    assert view is not None
    return view.attempts


async def test_openai_calls_functions_by_a_response(client: openai.AsyncOpenAI, engine: Engine) -> None:
    async def calls(asked: Asked) -> None:
        if asked.path == PATH:
            await chats_only(asked)
            return
        function = {"name": "add", "arguments": '{"a":1}'}
        call = {"id": "c1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        asked.reply({"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    engine.behaviour = calls
    whole = await client.responses.create(model=MODEL, input="Add.", tools=[TOOL], tool_choice="required")
    (call,) = whole.output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.call_id) == ("add", '{"a":1}', "c1")
    sent = engine.requests[-1].json
    assert sent["tools"] == [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}]
    assert sent["tool_choice"] == "required"


async def test_a_stream_that_breaks_is_an_error_and_never_just_ends(
    client: openai.AsyncOpenAI, door: Door, engine: Engine
) -> None:
    await client.responses.create(model=MODEL, input="Tell.")
    engine.behaviour = cut_after(2)
    heard = []
    with pytest.raises(openai.APIError, match="closed the connection"):
        heard.extend([event async for event in await client.responses.create(model=MODEL, input="Tell.", stream=True)])

    async def ends_early(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        asked.event({"id": "c1", "choices": [{"delta": {"content": "Once"}}]})
        asked.last_chunk()

    engine.behaviour = ends_early
    answer = await asked_of(door, {"stream": True})
    assert b"response.completed" not in answer.body
    assert "before it was complete" in json.loads(answer.body.split(b"data: ")[-1])["error"]["message"]
    assert door.reserved == {}


async def test_what_a_chat_cannot_say_goes_to_who_serves_responses_or_is_refused_by_its_field() -> None:
    web_search = {"tools": [{"type": "web_search"}]}
    async with Engine(chats_only) as one, Engine(serves) as other:
        fleet = FleetTwin(worker(one.url, "a"))
        async with opened(fleet) as door:
            answer = await asked_of(door, web_search)
            assert (answer.status, answer.json["error"]["param"]) == (400, "tools[0].type")
            assert answer.json["error"]["code"] == "not_translatable"
            answer = await asked_of(door, {"previous_response_id": "resp_1"})
            assert (answer.status, answer.json["error"]["param"]) == (400, "previous_response_id")
            fleet.become(worker(one.url, "a"), worker(other.url, "b"))
            answers = [await asked_of(door, web_search) for _ in range(3)]
            plain = [await asked_of(door, {}) for _ in range(2)]
            assert door.reserved == {}

    assert {answer.json["id"] for answer in answers} == {"resp_own"}
    assert {answer.headers["x-muster-worker"] for answer in plain} == {"a/llama", "b/llama"}


async def test_an_engines_own_error_is_told_in_openais_shape(door: Door, engine_behaviour: Engine) -> None:
    async def refuses(asked: Asked) -> None:
        if asked.path == PATH:
            await chats_only(asked)
        else:
            asked.reply({"error": {"message": "too long", "type": "invalid_request_error", "code": 400}}, 400)

    engine_behaviour.behaviour = refuses
    answer = await asked_of(door, {})
    assert (answer.status, answer.json["error"]["message"]) == (400, "too long")
