"""What is no good request is answered in the caller's shape, naming the field, and never by a traceback or a hang."""

import asyncio

import pytest

from muster.gateway import GatewayLimits
from tests.integration.gateway.door import Door, only, opened
from tests.integration.gateway.engine import TOKENS, Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, get, post, post_chunked

SHORT = GatewayLimits(
    head_bytes_max=2048, body_bytes_max=10_000, head_timeout_s=0.1, body_idle_timeout_s=0.1, keepalive_idle_s=0.1
)


async def asked(door: Door, request: bytes) -> Answer:
    async with await door.wire() as wire:
        wire.send(request)
        return await wire.answer()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {}, "model"),
        ("/v1/chat/completions", {"model": ""}, "model"),
        ("/v1/chat/completions", {"model": 3, "messages": []}, "model"),
        ("/v1/chat/completions", {"model": "m"}, "messages"),
        ("/v1/chat/completions", {"model": "m", "messages": "hello"}, "messages"),
        ("/v1/chat/completions", {"model": "m", "messages": []}, "messages"),
        ("/v1/chat/completions", {"model": "m", "messages": [{}], "stream": "yes"}, "stream"),
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": 4}, "prompt"),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/chat/completions", [1], None),
        ("/v1/chat/completions", b"", None),
        ("/v1/chat/completions", b'{"model"', None),
        ("/v1/chat/completions", b'{"model":"\xff"}', None),
        ("/v1/chat/completions", b"[" * 100_000, None),
    ],
)
async def test_openai_callers_learn_the_field(door: Door, path: str, body: object, field: str | None):
    answer = await asked(door, post(path, body))

    assert answer.status == 400
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "invalid_input"
    assert error["param"] == field
    assert error["message"]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/chat", {}, "model"),
        ("/api/chat", {"model": "smollm2-135m", "messages": "hello"}, "messages"),
        ("/api/chat", {"model": "smollm2-135m", "messages": [3]}, "messages"),
        ("/api/chat", {"model": "smollm2-135m", "messages": [{"role": "user"}], "format": "yaml"}, "format"),
        ("/api/chat", {"model": "smollm2-135m", "messages": [{"role": "tool", "content": "1"}]}, "tool"),
        ("/api/generate", {"model": "smollm2-135m", "prompt": 3}, "prompt"),
        ("/api/generate", {"model": "smollm2-135m", "prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ("/api/embed", {"model": "minilm", "input": 3}, "input"),
        ("/api/embeddings", {"model": "minilm", "prompt": []}, "prompt"),
        ("/api/show", {}, "model"),
        ("/api/chat", b"{", "JSON"),
    ],
)
async def test_ollama_callers_learn_the_field(door: Door, path: str, body: object, word: str):
    answer = await asked(door, post(path, body))

    assert answer.status == 400
    assert word in answer.json["error"]
    assert list(answer.json) == ["error"]


async def test_an_unknown_model_is_a_404_in_either_shape(door: Door):
    openai = await asked(door, post("/v1/chat/completions", chat(model="smolm2-135m")))
    ollama = await asked(door, post("/api/chat", {"model": "smolm2-135m", "messages": [{"role": "user"}]}))

    assert openai.status == ollama.status == 404
    assert openai.json["error"]["code"] == "model_not_found"
    assert "smollm2-135m" in openai.json["error"]["message"], "the nearest one is named"
    assert ollama.json == {"error": 'model "smolm2-135m" not found, try pulling it first'}


async def test_showing_an_unknown_model_names_it(door: Door):
    answer = await asked(door, post("/api/show", {"model": "smolm2-135m"}))

    assert answer.status == 404
    assert answer.json == {"error": "model 'smolm2-135m' not found"}


async def test_without_a_worker_that_takes_work_the_caller_is_told_why_and_when_to_try_again(engine: Engine):
    async with opened(FleetTwin(worker(engine.url, draining=True))) as door:
        answer = await asked(door, post("/v1/chat/completions", chat()))

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "node-a/llama is draining" in answer.json["error"]["message"]
    assert answer.json["error"]["code"] == "no_worker_available"


@pytest.mark.parametrize(
    ("request_bytes", "allow"),
    [
        (get("/v1/chat/completions"), "POST"),
        (post("/v1/models", b"{}"), "GET, HEAD"),
        (get("/api/chat", method="DELETE"), "POST"),
        (post("/api/tags", b""), "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_says_the_right_one(door: Door, request_bytes: bytes, allow: str):
    answer = await asked(door, request_bytes)

    assert answer.status == 405
    assert answer.headers["allow"] == allow
    assert "takes" in str(answer.json["error"])


async def test_a_token_is_asked_for_before_the_body_is_read(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), authenticate=only(b"secret")) as door:
        for header in ((), ("authorization: Bearer wrong",), ("authorization: Basic secret",)):
            answer = await asked(door, post("/v1/chat/completions", b"x" * 100, *header)[:-50])
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json["error"]["code"] == "unauthorized"
        assert (await asked(door, post("/api/chat", b"{}"))).json["error"].startswith("send the token")
        answer = await asked(door, post("/v1/chat/completions", chat(), "Authorization: bearer secret"))
        assert answer.status == 200

    assert "authorization" not in engine.requests[0].headers, (
        "the token of this Muster is none of the engine's business"
    )


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"HELLO\r\n\r\n",
        b"GET /api/version\r\n\r\n",
        b"GET /api/version HTTP/1.1\nhost: x\n\n",
        b"GET /api/version HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET /api/version HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /api/chat HTTP/1.1\r\ncontent-length: -3\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/chat HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
async def test_what_is_no_request_ends_the_connection_with_a_400(door: Door, request_bytes: bytes):
    async with await door.wire() as wire:
        wire.send(request_bytes + get("/smuggled"))
        answer = await wire.answer()
        assert answer.status == 400
        assert answer.json["code"] == "malformed_request"
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""


async def test_too_large_a_head_is_a_431_before_it_is_complete(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), limits=SHORT) as door:
        answer = await asked(door, b"GET /anything HTTP/1.1\r\nx: " + b"y" * 3000)

    assert answer.status == 431
    assert answer.json["code"] == "head_too_large"


async def test_too_large_a_body_is_a_413_whose_answer_the_caller_can_read(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), limits=SHORT) as door:
        async with await door.wire() as wire:
            wire.send(post("/v1/chat/completions", b"x" * 200_000))  # sent on although it is refused
            answer = await wire.answer()
            assert answer.status == 413
            assert answer.json["error"]["code"] == "payload_too_large"
            assert await wire.rest() == b""
        chunked = await asked(door, post_chunked("/api/chat", chat(padding="x" * 20_000)))
        assert chunked.status == 413
        assert "10000 bytes" in chunked.json["error"]

    assert engine.requests == []


async def test_whoever_begins_a_request_and_does_not_go_on_is_asked_to_leave(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), limits=SHORT) as door:
        head = await asked(door, b"POST /v1/chat/completions HTTP/1.1\r\nhost: m")
        body = await asked(door, post("/v1/chat/completions", chat())[:-1])
        async with await door.wire() as idle:
            assert await idle.rest() == b""

    assert head.status == body.status == 408
    assert head.json["code"] == "request_timeout"


async def test_the_slow_pieces_of_a_head_do_not_prolong_its_time(engine: Engine):
    limits = GatewayLimits(head_bytes_max=10_000_000, head_timeout_s=0.1)
    async with opened(FleetTwin(worker(engine.url)), limits=limits) as door, await door.wire() as wire:
        answer = asyncio.get_running_loop().create_task(wire.answer())
        wire.send(b"GET / HTTP/1.1\r\nx: ")
        while not answer.done():
            wire.send(b"y")
            await asyncio.sleep(0)
        assert (await answer).status == 408


async def test_a_caller_that_waits_for_leave_to_send_its_body_gets_it(door: Door):
    async with await door.wire() as wire:
        request = post("/v1/chat/completions", chat(), "expect: 100-continue")
        head, body = request.split(b"\r\n\r\n", 1)
        wire.send(head + b"\r\n\r\n")
        assert (await wire.head())[0] == 100
        wire.send(body)
        assert (await wire.answer()).status == 200

        wire.send(post("/echo", b"hello", "expect: 100-continue")[:-5])
        assert (await wire.head())[0] == 100
        wire.send(b"hello")
        assert (await wire.answer()).body == b"/echo|hello"


async def test_a_body_too_large_is_refused_instead_of_asked_for(engine: Engine):
    async with opened(FleetTwin(worker(engine.url)), limits=SHORT) as door:
        request = post("/v1/chat/completions", b"x" * 20_000, "expect: 100-continue")
        assert (await asked(door, request[:-20_000])).status == 413


async def test_http_1_0_callers_get_a_body_without_chunks_that_ends_with_the_connection(door: Door):
    async with await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat(stream=True), version="1.0"))
        status, headers = await wire.head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        body = await wire.rest()
        assert body.endswith(b"data: [DONE]\n\n")
        assert body.count(b"\n\n") == len(TOKENS) + 3

    async with await door.wire() as wire:
        wire.send(get("/api/version", version="1.0"))
        assert (await wire.answer()).json == {"version": "0.33.0"}
        assert await wire.rest() == b""


async def test_head_requests_have_the_head_only(door: Door):
    async with await door.wire() as wire:
        for path in ("/api/tags", "/api/version", "/v1/models"):
            wire.send(get(path, method="HEAD") + get(path))
            head = await wire.answer(head_only=True)
            whole = await wire.answer()
            assert head.headers["content-length"] == str(len(whole.body))


async def test_every_answer_carries_a_correlation_id_the_callers_own_if_it_is_safe(door: Door, engine: Engine):
    given = await asked(door, post("/v1/chat/completions", chat(), "x-correlation-id: abc-123"))
    made = await asked(door, post("/v1/chat/completions", chat()))
    unsafe = await asked(door, post("/v1/chat/completions", chat(), "x-correlation-id: a b<script>"))
    error = await asked(door, post("/v1/chat/completions", {}))

    assert given.headers["x-correlation-id"] == "abc-123"
    assert made.headers["x-correlation-id"].startswith("req-")
    assert unsafe.headers["x-correlation-id"].startswith("req-")
    assert error.headers["x-correlation-id"].startswith("req-")
    assert engine.requests[0].headers["x-correlation-id"] == "abc-123"
    assert given.headers["x-muster-worker"] == "node-a/llama"


async def test_an_engine_gets_the_callers_useful_headers_and_no_others(door: Door, engine: Engine):
    headers = ("x-session-id: s1", "cookie: secret", "accept-encoding: gzip", "connection: close", "x-api-key: k")
    await asked(door, post("/v1/chat/completions", chat(), "user-agent: me", *headers))

    got = engine.requests[0].headers
    assert (got["x-session-id"], got["content-type"]) == ("s1", "application/json")
    assert not {"cookie", "accept-encoding", "connection", "x-api-key", "user-agent"} & set(got)


async def test_queries_and_the_absolute_form_name_the_same_path(door: Door):
    assert (await asked(door, get("/api/version?x=1"))).json == {"version": "0.33.0"}
    assert (await asked(door, get("http://muster:80/api/version"))).json == {"version": "0.33.0"}
    assert (await asked(door, get("/api/versions"))).body == b"/api/versions|"
    assert (await asked(door, get("/v1/models/"))).body == b"/v1/models/|"
    assert (await asked(door, get("/v1/models/minilm"))).json["id"] == "minilm:latest"
    assert (await asked(door, get("/v1/models/org%2Fnone"))).status == 404
    near = (await asked(door, get("/v1/models/minilmm"))).json["error"]["message"]
    assert "did you mean 'minilm:latest'" in near
    assert (await asked(door, b"\r\n\r\n" + get("/api/version"))).status == 200
