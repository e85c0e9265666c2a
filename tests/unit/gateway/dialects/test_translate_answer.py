import json
from typing import Any

import pytest

from muster.errors import UpstreamFailed
from muster.gateway.dialects import ollama
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.dialects.translate_answer import loaded, translation
from tests.clocks import ManualClock

BYTES_MAX = 10_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now_ms=1_700_000_000_000)


def call_of(path: str = "/api/chat", **body: Any) -> Call:
    return ollama.parse(path, json.dumps({"model": "m", "messages": [{}], "prompt": "x", "input": "x"} | body).encode())


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def delta(said: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"delta": said, "finish_reason": finish_reason}]})


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


STREAM = (
    delta({"role": "assistant", "content": None})
    + delta({"content": "Hé"})
    + b": a comment that keeps the connection alive\n\n"
    + delta({"content": "llo"})
    + delta({}, "stop")
    + event({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}})
    + b"data: [DONE]\n\n"
)


def test_every_piece_is_a_line_and_the_last_one_has_counts_and_times(clock: ManualClock):
    answer = translation(call_of(), clock, BYTES_MAX)
    assert answer.content_type == b"application/x-ndjson"
    clock.advance(0.5)
    pieces = lines(answer.feed(STREAM))
    clock.advance(1.5)
    [last] = lines(answer.finish())

    head = {"model": "m", "created_at": "2023-11-14T22:13:20.500000Z"}
    assert pieces == [
        head | {"message": {"role": "assistant", "content": "Hé"}, "done": False},
        head | {"message": {"role": "assistant", "content": "llo"}, "done": False},
    ]
    assert last == {
        "model": "m",
        "created_at": "2023-11-14T22:13:22Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "total_duration": 2_000_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 500_000_000,
        "eval_duration": 1_500_000_000,
        "prompt_eval_count": 4,
        "eval_count": 2,
    }


def test_a_piece_goes_on_as_soon_as_its_line_is_whole_however_the_bytes_come(clock: ManualClock):
    whole = translation(call_of(), clock, BYTES_MAX)
    expected = whole.feed(STREAM) + whole.finish()
    for size in (1, 2, 3, 7, 50):
        answer = translation(call_of(), clock, BYTES_MAX)
        got = b"".join(answer.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size))
        assert got + answer.finish() == expected


def test_windows_line_ends_and_missing_spaces_are_understood(clock: ManualClock):
    answer = translation(call_of(), clock, BYTES_MAX)
    stream = STREAM.replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    assert len(lines(answer.feed(stream) + answer.finish())) == 3


def test_generate_says_response_and_thinking_has_its_own_member(clock: ManualClock):
    answer = translation(call_of("/api/generate"), clock, BYTES_MAX)
    stream = delta({"reasoning_content": "hm"}) + delta({"reasoning": "so"}) + delta({"content": "Yes"}, "length")
    got = lines(answer.feed(stream) + answer.finish())
    assert [(line["response"], line.get("thinking")) for line in got] == [
        ("", "hm"),
        ("", "so"),
        ("Yes", None),
        ("", None),
    ]
    assert got[-1]["done_reason"] == "length"


def test_plain_completions_stream_too(clock: ManualClock):
    answer = translation(call_of("/api/generate", raw=True), clock, BYTES_MAX)
    stream = event({"choices": [{"text": "On"}]}) + event({"choices": [{"text": "", "finish_reason": "stop"}]})
    got = lines(answer.feed(stream) + answer.finish())
    assert [line["response"] for line in got] == ["On", ""]


def test_llama_cpps_own_times_are_preferred(clock: ManualClock):
    answer = translation(call_of(), clock, BYTES_MAX)
    timed = {"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": {"prompt_ms": 1.5, "predicted_ms": 20}}
    [last] = lines(answer.feed(event(timed)) + answer.finish())
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (1_500_000, 20_000_000)
    assert "eval_count" not in last, "what is not known is not told"


def test_tool_calls_are_gathered_and_told_whole(clock: ManualClock):
    answer = translation(call_of(), clock, BYTES_MAX)
    begin = {"index": 1, "id": "i", "function": {"name": "add", "arguments": '{"a'}}
    stream = (
        delta({"tool_calls": [begin]})
        + delta({"tool_calls": [{"index": 0, "function": {"name": "now"}}]})
        + delta({"tool_calls": [{"index": 1, "function": {"arguments": '":1}'}}]})
        + delta({}, "tool_calls")
    )
    calls, last = lines(answer.feed(stream) + answer.finish())
    assert calls["message"]["tool_calls"] == [
        {"function": {"index": 0, "name": "now", "arguments": {}}},
        {"id": "i", "function": {"index": 1, "name": "add", "arguments": {"a": 1}}},
    ]
    assert (calls["done"], last["done"], last["done_reason"]) == (False, True, "stop")


@pytest.mark.parametrize(
    "stream",
    [
        delta({"content": "x"}),
        delta({"content": "x"}) + b"data: [DONE]\n\n",
        b"",
        delta({"content": "x"}) + b'data: {"choices":',
        event({"error": {"message": "out of memory"}}),
        b'error: {"message": "old style"}\n\n',
        b"data: nonsense\n\n",
        event({"choices": 3}),
        delta({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}, "tool_calls"),
    ],
)
def test_a_stream_that_does_not_end_well_is_a_failure(stream: bytes, clock: ManualClock):
    answer = translation(call_of(), clock, BYTES_MAX)
    with pytest.raises(UpstreamFailed):
        answer.feed(stream) + answer.finish()


def test_an_answer_that_is_no_stream_is_told_as_a_whole(clock: ManualClock):
    answer = translation(call_of(stream=False), clock, BYTES_MAX)
    assert answer.content_type == b"application/json"
    tool = {"id": "i", "function": {"name": "f", "arguments": "{}"}}
    said = {"content": "Hi", "reasoning_content": "hm", "tool_calls": [tool]}
    body = {
        "choices": [{"message": said, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    data = json.dumps(body).encode()
    assert answer.feed(data[:20]) + answer.feed(data[20:]) == b""
    told = json.loads(answer.finish())
    assert told["message"] == {
        "role": "assistant",
        "content": "Hi",
        "thinking": "hm",
        "tool_calls": [{"id": "i", "function": {"index": 0, "name": "f", "arguments": {}}}],
    }
    assert (told["done"], told["done_reason"], told["eval_count"]) == (True, "length", 2)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices":[{"message":{"content":3}}]}', b"\xff"])
def test_a_whole_answer_that_makes_no_sense_is_a_failure(body: bytes, clock: ManualClock):
    answer = translation(call_of(stream=False), clock, BYTES_MAX)
    answer.feed(body)
    with pytest.raises(UpstreamFailed, match="not understood"):
        answer.finish()


def test_a_whole_answer_is_collected_up_to_its_bound(clock: ManualClock):
    answer = translation(call_of(stream=False), clock, 10)
    with pytest.raises(UpstreamFailed, match="longer than 10 bytes"):
        answer.feed(b"x" * 11)


def test_embeddings_keep_every_digit(clock: ManualClock):
    body = b'{"data":[{"embedding":[0.10,-1e-7]},{"embedding":[2]}],"usage":{"prompt_tokens":5}}'
    new = translation(call_of("/api/embed"), clock, BYTES_MAX)
    new.feed(body)
    told = new.finish()
    assert b"[[0.10,-1e-7],[2]]" in told
    assert json.loads(told)["prompt_eval_count"] == 5
    old = translation(call_of("/api/embeddings"), clock, BYTES_MAX)
    old.feed(body)
    assert old.finish() == b'{"embedding":[0.10,-1e-7]}'
    empty = translation(call_of("/api/embeddings"), clock, BYTES_MAX)
    empty.feed(b'{"data":[]}')
    assert empty.finish() == b'{"embedding":[]}'
    with pytest.raises(UpstreamFailed, match="not understood"):
        translation(call_of("/api/embed"), clock, BYTES_MAX).finish()


def test_loading_is_answered_at_once(clock: ManualClock):
    chat = json.loads(loaded(call_of(messages=[]), clock, unload=False))
    assert (chat["message"]["content"], chat["done"], chat["done_reason"]) == ("", True, "load")
    generate = json.loads(loaded(call_of("/api/generate", prompt=""), clock, unload=True))
    assert (generate["response"], generate["done_reason"]) == ("", "unload")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b'{"error":"plain"}', "plain"),
        (b'{"detail":[{"msg":"x"}]}', "[{'msg': 'x'}]"),
        (b'{"message":"m"}', "m"),
        (b"gateway says no", "gateway says no"),
        (b"\xff\xfe", "��"),
        (b"{}", "{}"),
    ],
)
def test_the_sentence_in_an_engines_error(body: bytes, text: str):
    assert error_text(body) == text
