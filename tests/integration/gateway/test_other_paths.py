"""Paths that only some engines have: passed on as they are, to who has them."""

import json
from typing import Any

import pytest

from tests.integration.gateway.door import Door, only, opened
from tests.integration.gateway.engine import Asked, Engine, cut_after, reset, stall_after
from tests.integration.gateway.fleet import BOTH, CHAT, FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, get, post

MODEL = "smollm2-135m"
FORM = (
    b'--x1\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmollm2-135m:latest\r\n'
    b'--x1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\x00\r\n--x\r\n\xff\r\n--x1--\r\n"
)
PATHS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": MODEL, "input": "Hi"},
    "/v1/rerank": {"model": MODEL, "query": "a", "documents": ["a"]},
    "/v1/score": {"model": MODEL, "text_1": "a", "text_2": ["b"]},
    "/v1/audio/speech": {"model": MODEL, "input": "Hi", "voice": "a"},
    "/v1/images/generations": {"model": MODEL, "prompt": "a cat"},
    "/v1/messages": {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]},
}


async def echo(asked: Asked) -> None:
    asked.head(content_type=asked.headers["content-type"], length=len(asked.body))
    asked.raw(asked.body)


async def lacking(asked: Asked) -> None:
    asked.reply({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404)


async def asked_of(door: Door, request: bytes) -> Answer:
    async with await door.wire() as wire:
        wire.send(request)
        return await wire.answer()


@pytest.mark.parametrize("path", PATHS)
async def test_what_an_engine_has_it_gets_byte_for_byte(door: Door, engine: Engine, path: str) -> None:
    engine.behaviour = echo
    body = json.dumps(PATHS[path], indent=1).encode()
    answer = await asked_of(door, post(path, body))
    assert (answer.status, answer.body, engine.requests[0].path) == (200, body, path)
    assert answer.headers["x-muster-worker"] == "node-a/llama"


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/responses"])
async def test_who_does_not_have_a_path_is_passed_over(path: str) -> None:
    async with (
        Engine(lacking) as one,
        Engine(echo) as other,
        opened(FleetTwin(worker(one.url, "a"), worker(other.url, "b"))) as door,
    ):
        answers = [await asked_of(door, post(path, PATHS[path])) for _ in range(2)]
        assert door.reserved == {}
        assert door.gateway.stats().upstream_failures_total == 0
    assert [answer.headers["x-muster-worker"] for answer in answers] == ["b/llama"] * 2
    assert len(one.requests) >= 1


async def test_a_path_that_nobody_has_is_refused_in_words(door: Door, engine: Engine) -> None:
    engine.behaviour = lacking
    answer = await asked_of(door, post("/v1/rerank", PATHS["/v1/rerank"]))
    assert (answer.status, answer.json["error"]["code"]) == (404, "path_not_served")
    assert answer.json["error"]["message"] == (
        "nobody who has the model smollm2-135m serves /v1/rerank: node-a/llama answered 404 (File Not Found)"
    )
    assert answer.headers["x-should-retry"] == "false"
    answer = await asked_of(door, post("/v1/messages", PATHS["/v1/messages"]))
    assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (404, "error", "not_found_error")


async def test_an_earlier_response_that_is_gone_is_no_missing_path(door: Door, engine: Engine) -> None:
    engine.behaviour = lacking
    answer = await asked_of(door, post("/v1/responses", PATHS["/v1/responses"] | {"previous_response_id": "r"}))
    assert answer.json["error"]["message"] == "File Not Found"


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_a_form_goes_to_who_has_its_model_under_that_ones_name(door: Door, engine: Engine, path: str) -> None:
    engine.behaviour = echo
    answer = await asked_of(door, post(path, FORM, "content-type: multipart/form-data; boundary=x1"))
    assert (answer.status, answer.headers["content-type"]) == (200, 'multipart/form-data; boundary="x1"')
    assert answer.body == FORM.replace(b":latest", b"")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b'{"model": "m"}', "body"),
        (b"--x\r\nhalf", "body"),
        (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x--\r\n", "model"),
        (b"--x\r\n" + b"\r\n\r\n\r\n--x\r\n" * 70, "body"),
    ],
)
async def test_a_form_that_says_no_model_is_refused(door: Door, engine: Engine, body: bytes, field: str) -> None:
    answer = await asked_of(door, post("/v1/audio/transcriptions", body))
    assert (answer.status, answer.json["error"]["param"]) == (400, field)
    assert engine.requests == []


# --- Anthropic's -----------------------------------------------------------------------------------------------------


async def test_anthropics_clients_send_their_token_in_a_header_of_their_own(engine: Engine) -> None:
    engine.behaviour = echo
    async with opened(FleetTwin(worker(engine.url)), authenticate=only(b"right")) as door:
        for header in ("x-api-key: right", "authorization: Bearer right"):
            answer = await asked_of(door, post("/v1/messages", PATHS["/v1/messages"], header, "anthropic-version: 1"))
            assert answer.status == 200
        answer = await asked_of(door, post("/v1/messages", PATHS["/v1/messages"], "x-api-key: wrong"))
        assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
    assert [asked.headers.get("x-api-key") for asked in engine.requests] == [None, None]
    assert engine.requests[0].headers["anthropic-version"] == "1"


async def test_anthropics_clients_get_errors_and_lists_in_their_shape(door: Door, engine: Engine) -> None:
    answer = await asked_of(door, post("/v1/messages", PATHS["/v1/messages"] | {"model": "nothing"}))
    assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (404, "error", "not_found_error")
    answer = await asked_of(door, post("/v1/messages", {"model": MODEL, "messages": []}))
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")

    def refuse(body: Any) -> Any:
        async def behaviour(asked: Asked) -> None:
            asked.reply(body, 400)

        return behaviour

    own = {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}}
    for said in (own, {"error": {"message": "too long", "code": 400}}, {"error": "too long"}):
        engine.behaviour = refuse(said)
        answer = await asked_of(door, post("/v1/messages", PATHS["/v1/messages"]))
        assert (answer.status, answer.json) == (400, own)

    listed = (await asked_of(door, get("/v1/models", "anthropic-version: 1"))).json
    assert [model["id"] for model in listed["data"]] == ["minilm:latest", MODEL]
    assert (listed["first_id"], listed["has_more"]) == ("minilm:latest", False)
    assert (await asked_of(door, get(f"/v1/models/{MODEL}", "anthropic-version: 1"))).json["type"] == "model"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_a_stream_that_breaks_ends_with_an_error_in_the_callers_shape(
    door: Door, engine: Engine, path: str
) -> None:
    engine.behaviour = cut_after(2)
    answer = await asked_of(door, post(path, PATHS[path] | {"stream": True}))
    last = answer.body.split(b"data: ")[-1]
    assert "closed the connection" in json.loads(last)["error"]["message"]
    assert (b"event: error\ndata: " in answer.body) == (path == "/v1/messages")
    engine.behaviour = reset
    answer = await asked_of(door, post(path, PATHS[path]))
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "true")


SPEAKS: dict[str, list[dict[str, Any]]] = {
    "/v1/audio/speech": [{"type": "speech.audio.delta", "audio": "AA"}, {"type": "speech.audio.done"}],
    "/v1/images/generations": [
        {"type": "image_generation.partial_image", "b64_json": "AA"},
        {"type": "image_generation.completed", "b64_json": "AA"},
    ],
    "/v1/audio/transcriptions": [
        {"type": "transcript.text.delta", "delta": "a"},
        {"type": "transcript.text.done", "text": "a"},
    ],
}


@pytest.mark.parametrize("path", SPEAKS)
async def test_a_stream_of_sound_or_pictures_is_whole_or_ends_with_an_error(
    door: Door, engine: Engine, path: str
) -> None:
    request = (
        post(path, FORM, "content-type: multipart/form-data; boundary=x1")
        if path not in PATHS
        else post(path, PATHS[path] | {"stream": True, "stream_format": "sse"})
    )
    events = SPEAKS[path]

    async def says(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        for event in events:
            asked.event(event)
        asked.last_chunk()

    engine.behaviour = says
    answer = await asked_of(door, request)
    assert answer.body.count(b"data: ") == len(events)
    assert b"error" not in answer.body
    del events[-1]  # from now on the engine ends early, and properly as HTTP has it
    answer = await asked_of(door, request)
    assert "before it was complete" in json.loads(answer.body.split(b"data: ")[-1])["error"]["message"]


async def test_who_leaves_a_messages_stream_frees_its_worker(door: Door, engine: Engine) -> None:
    engine.behaviour = stall_after(2)
    async with await door.wire() as wire:
        wire.send(post("/v1/messages", PATHS["/v1/messages"] | {"stream": True}))
        await wire.head()
    async with await door.wire() as wire:
        wire.send(get("/v1/models"))
        await wire.answer()
    assert door.finished[0].status == 499


# --- Ollama's context ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "sent"), [(2048, 8192), (8192, 8192), (16384, 16384), ("x", "x"), (None, None)])
async def test_less_context_than_a_model_is_loaded_with_does_not_load_it_again(
    engine: Engine, wanted: object, sent: object
) -> None:
    async def answer(asked: Asked) -> None:
        asked.reply({"done": True})

    engine.behaviour = answer
    async with opened(FleetTwin(worker(engine.url, "a", CHAT, dialects=BOTH))) as door:
        options = {"temperature": 0, "num_ctx": wanted}
        await asked_of(door, post("/api/chat", chat(options=options, keep_alive="10m")))
    assert engine.requests[0].json["options"] == {"temperature": 0, "num_ctx": sent}
    assert engine.requests[0].json["keep_alive"] == "10m"
