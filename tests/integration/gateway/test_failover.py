"""Six ways a worker fails while its health check still succeeds; none may go unnoticed."""

import asyncio
import json

import pytest

from muster.domain.service import Dialect
from muster.gateway import GatewayLimits
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import (
    TOKENS,
    Behaviour,
    Engine,
    cut_after,
    cut_within_a_line,
    hang,
    head_then_reset,
    ollama,
    refuse,
    reset,
    stall_after,
)
from tests.integration.gateway.fleet import BOTH, OPENAI_ONLY, FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.waiting import eventually

# Only who says nothing is given so little: another one has to answer within it, be the machine as busy as it likes.
SHORT = GatewayLimits(first_byte_timeout_s=0.3)
LONG = GatewayLimits()
TEXT = "".join(TOKENS)
DIALECTS = pytest.mark.parametrize("dialects", [OPENAI_ONLY, BOTH], ids=["openai engine", "ollama engine"])
PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
STREAM = pytest.mark.parametrize("stream", [True, False])


async def asked(door: Door, request: bytes) -> Answer:
    async with await door.wire() as wire:
        wire.send(request)
        return await wire.answer()


def text_of(answer: Answer) -> str:
    """Put the pieces together, whatever the dialect, streamed or not."""
    if answer.headers["content-type"] == "application/json":
        message = answer.json["choices"][0]["message"] if "choices" in answer.json else answer.json["message"]
        return str(message["content"])
    text = ""
    for line in answer.body.decode().splitlines():
        if line.startswith("data: {"):
            choices = json.loads(line[6:])["choices"]
            text += (choices[0]["delta"].get("content") or "") if choices else ""
        elif line.startswith("{"):
            text += json.loads(line)["message"]["content"]
    return text


@PATHS
@STREAM
@DIALECTS
@pytest.mark.parametrize("fault", [refuse, reset, head_then_reset, hang], ids=lambda fault: fault.__name__)
async def test_a_failure_before_the_first_byte_is_hidden(
    path: str, *, stream: bool, dialects: tuple[Dialect, ...], fault: Behaviour
):
    async with Engine(fault) as bad, Engine(ollama) as good:
        fleet = FleetTwin(worker(bad.url, "a", dialects=dialects), worker(good.url, "b", dialects=dialects))
        async with opened(fleet, limits=SHORT if fault is hang else LONG) as door:
            for _ in range(2):
                answer = await asked(door, post(path, chat(stream=stream)))
                assert answer.status == 200
                assert text_of(answer) == TEXT
                assert answer.headers["x-muster-worker"] == "b/llama"
            assert door.reserved == {}
        assert len(bad.requests) >= 1, "the bad one was asked"
        await eventually(lambda: bad.answering == 0)


@PATHS
async def test_a_worker_that_is_gone_is_passed_over(path: str):
    async with Engine(ollama) as gone, Engine(ollama) as good:
        fleet = FleetTwin(worker(gone.url, "a"), worker(good.url, "b"))
        await gone.stop()
        async with opened(fleet) as door:
            for _ in range(2):
                assert text_of(await asked(door, post(path, chat()))) == TEXT
            assert door.gateway.stats().upstream_failures_total == 1


async def test_when_all_have_failed_the_last_failure_is_told_with_the_workers_name():
    async with (
        Engine(reset) as one,
        Engine(reset) as two,
        opened(FleetTwin(worker(one.url, "a"), worker(two.url, "b"))) as door,
    ):
        answer = await asked(door, post("/v1/chat/completions", chat()))
        assert answer.status == 502
        assert answer.json["error"]["code"] == "upstream_failed"
        assert "/llama" in answer.json["error"]["message"]
        assert len(one.requests) == len(two.requests) == 1
        assert door.reserved == {}


async def test_no_more_workers_are_tried_than_allowed():
    async with Engine(reset) as bad:
        fleet = FleetTwin(*(worker(bad.url, f"node-{number}") for number in range(5)))
        async with opened(fleet, limits=GatewayLimits(attempts_max=2)) as door:
            assert (await asked(door, post("/api/chat", chat()))).status == 502
    assert len(bad.requests) == 2


@PATHS
async def test_the_only_workers_refusal_is_passed_on_with_a_hint_when_to_try_again(path: str):
    async with Engine(refuse) as loading, opened(FleetTwin(worker(loading.url))) as door:
        answer = await asked(door, post(path, chat()))

    assert answer.status == 503
    assert "Loading model" in str(answer.json["error"])
    assert path == "/api/chat" or answer.headers["retry-after"] == "1"


@PATHS
async def test_an_engines_word_that_the_request_is_wrong_is_passed_on_and_nobody_else_is_asked(path: str):
    async def too_long(asked):
        asked.reply({"error": {"message": "exceeds the context", "n_ctx": 2048}}, 400)

    async with (
        Engine(too_long) as one,
        Engine(too_long) as two,
        opened(FleetTwin(worker(one.url, "a"), worker(two.url, "b"))) as door,
    ):
        answer = await asked(door, post(path, chat()))
    assert answer.status == 400
    assert len(one.requests) + len(two.requests) == 1
    if path == "/api/chat":
        assert answer.json == {"error": "exceeds the context"}
    else:
        assert answer.json == {"error": {"message": "exceeds the context", "n_ctx": 2048}}


async def test_a_hang_is_ended_by_an_explicit_error():
    async with Engine(hang) as engine, opened(FleetTwin(worker(engine.url)), limits=SHORT) as door:
        answer = await asked(door, post("/v1/chat/completions", chat()))
        assert answer.status == 504
        assert answer.json["error"]["code"] == "upstream_timeout"
        assert answer.headers["x-should-retry"] == "false", "the work was begun"
        assert (await asked(door, post("/api/generate", {"model": "smollm2-135m", "prompt": "x"}))).status == 504
        await eventually(lambda: engine.answering == 0)
        assert door.reserved == {}


@DIALECTS
@pytest.mark.parametrize("fault", [cut_after(2), stall_after(2), cut_within_a_line(2)], ids=["cut", "stall", "torn"])
async def test_a_stream_that_breaks_ends_with_an_error_in_the_callers_dialect(
    dialects: tuple[Dialect, ...], fault: Behaviour
):
    async with Engine(fault) as engine, Engine(ollama) as other:
        fleet = FleetTwin(worker(engine.url, "a", dialects=dialects))
        async with opened(fleet, limits=GatewayLimits(idle_timeout_s=0.1)) as door:
            sse = await asked(door, post("/v1/chat/completions", chat(stream=True)))
            ndjson = await asked(door, post("/api/chat", chat(stream=True)))
        assert other.requests == [], "what has begun is not begun anew elsewhere"

    events = [line for line in sse.body.decode().split("\n") if line]
    assert [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[1:-1]] == [
        {"content": TOKENS[0]},
        {"content": TOKENS[1]},
    ]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] in {"upstream_failed", "upstream_timeout"}
    assert b"[DONE]" not in sse.body

    lines = [json.loads(line) for line in ndjson.body.splitlines()]
    assert [line["message"]["content"] for line in lines[:-1]] == list(TOKENS[:2])
    assert list(lines[-1]) == ["error"]
    assert sse.status == ndjson.status == 200


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("length", [1000, None])
async def test_an_answer_that_is_no_stream_and_breaks_off_is_seen_to_be_incomplete(version: str, length: int | None):
    async def cut(asked):
        asked.head(length=length)
        if length is None:
            asked.chunk(b"x" * 500)
        else:
            asked.raw(b"x" * 500)
        await asked.written()
        asked.close()

    async with Engine(cut) as engine, opened(FleetTwin(worker(engine.url))) as door, await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat(), version=version))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await wire.answer()


async def test_a_stream_without_framing_that_lacks_its_last_event_was_cut():
    async def unframed(asked):
        asked.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n")
        if asked.json.get("whole"):
            asked.raw(b"data: [DONE]\n\n")
        await asked.written()
        asked.close()

    async with Engine(unframed) as engine, opened(FleetTwin(worker(engine.url))) as door:
        cut = await asked(door, post("/v1/chat/completions", chat(stream=True)))
        whole = await asked(door, post("/v1/chat/completions", chat(stream=True, whole=True)))

    assert b'"error"' in cut.body
    assert whole.body == b"data: {}\n\ndata: [DONE]\n\n"


async def test_a_translated_stream_without_a_reason_of_its_end_was_cut():
    async def early(asked):
        asked.head(content_type="text/event-stream")
        asked.event({"choices": [{"delta": {"content": "Once"}}]})
        asked.last_chunk()

    async with Engine(early) as engine, opened(FleetTwin(worker(engine.url))) as door:
        answer = await asked(door, post("/api/chat", chat(stream=True)))

    assert "before it was complete" in json.loads(answer.body.splitlines()[-1])["error"]


async def test_a_connection_that_died_while_idle_is_replaced_without_counting_as_a_failure(engine: Engine):
    async with opened(FleetTwin(worker(engine.url))) as door:
        for _ in range(3):
            assert (await asked(door, post("/v1/chat/completions", chat()))).status == 200
        assert engine.connections_ever == 1
        normal = engine.behaviour
        dying = set(engine.connections)

        async def dies_when_asked_again(asked):
            if asked._connection in dying:
                asked.reset()
            else:
                await normal(asked)

        engine.behaviour = dies_when_asked_again
        assert (await asked(door, post("/v1/chat/completions", chat()))).status == 200
        assert engine.connections_ever == 2
        assert door.gateway.stats().upstream_failures_total == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-long: y\r\n" * 10_000,
    ],
    ids=["nonsense", "length", "upgrade", "long head"],
)
async def test_an_engine_that_does_not_speak_http_is_passed_over(answer: bytes):
    async def odd(asked):
        asked.raw(answer)

    async with (
        Engine(odd) as bad,
        Engine() as good,
        opened(FleetTwin(worker(bad.url, "a"), worker(good.url, "b"))) as door,
    ):
        for _ in range(2):
            assert (await asked(door, post("/v1/chat/completions", chat()))).status == 200
        assert door.gateway.stats().upstream_failures_total == 1


async def test_interim_answers_are_passed_over_and_surplus_bytes_never_reach_anybody():
    async def talkative(asked):
        asked.raw(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        asked.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        asked.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    async with Engine(talkative) as engine, opened(FleetTwin(worker(engine.url))) as door, await door.wire() as wire:
        for _ in range(3):
            wire.send(post("/v1/chat/completions", chat()))
            assert (await wire.answer()).body == b"ok"
        assert engine.connections_ever == 3, "an engine out of step is not asked again on that connection"


async def test_a_url_that_makes_no_sense_is_passed_over(engine: Engine):
    fleet = FleetTwin(worker("http://host:port/", "a"), worker("http://[::1", "b"), worker(engine.url, "c"))
    async with opened(fleet) as door:
        assert (await asked(door, post("/v1/chat/completions", chat()))).status == 200
        assert door.reserved == {}


async def test_an_engines_own_error_within_a_stream_reaches_a_caller_of_the_other_dialect():
    async def fails_midway(asked):
        asked.head(content_type="text/event-stream")
        asked.event({"choices": [{"delta": {"content": "Once"}}]})
        await asked.written()
        asked.event({"error": {"message": "out of memory"}})
        await asyncio.Event().wait()

    async with Engine(fails_midway) as engine, opened(FleetTwin(worker(engine.url))) as door:
        answer = await asked(door, post("/api/chat", chat(stream=True)))
        assert json.loads(answer.body.splitlines()[-1]) == {"error": "the engine failed: out of memory"}
        await eventually(lambda: engine.answering == 0)
        assert door.reserved == {}


async def test_an_engines_refusal_in_pieces_is_told_whole_in_the_other_dialect():
    async def refuses_slowly(asked):
        asked.head(400)
        for piece in (b'{"error":{"mess', b'age":"no such ', b'thing"}}'):
            asked.chunk(piece)
            await asked.written()
            await asyncio.sleep(0)
        asked.last_chunk()

    async with Engine(refuses_slowly) as engine, opened(FleetTwin(worker(engine.url))) as door:
        answer = await asked(door, post("/api/chat", chat(stream=True)))
    assert (answer.status, answer.json) == (400, {"error": "no such thing"})
