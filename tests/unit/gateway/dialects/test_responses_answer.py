import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from muster.errors import UpstreamFailed
from muster.gateway.dialects import openai
from muster.gateway.dialects.ending import has_told_its_end
from muster.gateway.dialects.responses_answer import response
from muster.gateway.dialects.translate_answer import Translation
from tests.clocks import ManualClock

BYTES_MAX = 10_000
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def translation(bytes_max: int = BYTES_MAX, **asked: Any) -> Translation:
    body = json.dumps({"model": "M", "input": "Hi"} | asked).encode()
    clock = ManualClock(now_ms=1_700_000_000_000)
    return response(openai.parse_response(openai.RESPONSES, body), clock, bytes_max)


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def delta(said: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return event({"id": "chatcmpl-7", "choices": [{"delta": said, "finish_reason": finish_reason}]})


def call(index: int, arguments: str, **more: Any) -> bytes:
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return delta({"tool_calls": [{"index": index, "function": function} | more]})


USAGE = event(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }
)
DONE = b"data: [DONE]\n\n"
TEXT = (
    delta({"role": "assistant", "content": None})
    + delta({"reasoning_content": "hm"})
    + b": a comment\n\n"
    + delta({"content": "Hé"})
    + delta({"content": "llo"})
    + delta({}, "stop")
    + USAGE
    + DONE
)
CALLS = (
    delta({"content": "Well."})
    + call(0, "", id="c1", name="add")
    + call(0, '{"a":')
    + call(1, "{}", name="sub")
    + call(0, "1}")
    + delta({}, "tool_calls")
    + DONE
)


def events(data: bytes) -> list[dict[str, Any]]:
    """Every one is what OpenAI's own package takes for one."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, content = block.split("\n")
        told = json.loads(content.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        EVENTS.validate_python(told)
        found.append(told)
    assert [told["sequence_number"] for told in found] == list(range(len(found)))
    return found


def all_of(answer: Translation, data: bytes) -> bytes:
    return answer.feed(data) + answer.finish()


def streamed(data: bytes, **asked: Any) -> list[dict[str, Any]]:
    answer = translation(stream=True, **asked)
    assert answer.content_type.startswith(b"text/event-stream")
    return events(all_of(answer, data))


def test_what_is_thought_and_said_is_told_as_it_begins_grows_and_ends() -> None:
    told = streamed(TEXT)
    assert [one["type"].removeprefix("response.") for one in told] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        "completed",
    ]
    whole = Response.model_validate(told[-1]["response"])
    assert (whole.id, whole.status, whole.output_text, whole.model) == ("resp_7", "completed", "Héllo", "M")
    assert [item.id for item in whole.output] == ["rs_7_0", "msg_7_1"]
    assert [one["output_index"] for one in told if "output_index" in one] == [0] * 6 + [1] * 7
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (4, 2, 6)
    assert whole.usage.input_tokens_details.cached_tokens == 3
    assert whole.usage.output_tokens_details.reasoning_tokens == 1
    assert told[0]["response"]["status"] == "in_progress"


def test_functions_that_are_called_by_turns_are_told_apart() -> None:
    told = streamed(CALLS)
    whole = Response.model_validate(told[-1]["response"])
    calls = [item for item in whole.output if item.type == "function_call"]
    assert [(item.name, item.arguments, item.call_id) for item in calls] == [
        ("add", '{"a":1}', "c1"),
        ("sub", "{}", "call_7_2"),
    ]
    deltas = [one for one in told if one["type"] == "response.function_call_arguments.delta"]
    assert [(one["output_index"], one["delta"]) for one in deltas] == [(1, '{"a":'), (2, "{}"), (1, "1}")]
    assert whole.usage is None


@pytest.mark.parametrize("stream", [TEXT, CALLS])
def test_in_whatever_pieces_it_comes_the_events_are_the_same(stream: bytes) -> None:
    whole = translation(stream=True)
    expected = all_of(whole, stream)
    for step in (1, 7, 50):
        answer = translation(stream=True)
        pieces = [answer.feed(stream[at : at + step]) for at in range(0, len(stream), step)]
        assert b"".join(pieces) + answer.finish() == expected
    assert has_told_its_end(openai.RESPONSES, expected)


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter"), ("stop", None)]
)
def test_an_answer_that_was_cut_by_its_bound_says_so(reason: str, why: str | None) -> None:
    last = streamed(delta({"content": "H"}) + delta({}, reason))[-1]
    assert last["type"] == ("response.completed" if why is None else "response.incomplete")
    assert (last["response"]["incomplete_details"] or {}).get("reason") == why
    assert last["response"]["output"][0]["status"] == ("completed" if why is None else "incomplete")


def test_a_refusal_is_one() -> None:
    (message,) = streamed(delta({"refusal": "No."}) + delta({}, "stop"))[-1]["response"]["output"]
    assert message["content"] == [{"type": "refusal", "refusal": "No."}]


def test_an_answer_as_a_whole_repeats_what_was_asked() -> None:
    tools = [{"type": "function", "name": "add", "parameters": {}, "strict": True}]
    answer = translation(instructions="Be brief.", temperature=0.5, tools=tools, metadata={"a": "b"})
    message = {
        "role": "assistant",
        "content": "Hi.",
        "reasoning": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
    }
    body = json.dumps({"id": "x", "choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    assert answer.feed(body[:9]) + answer.feed(body[9:]) == b""
    assert answer.content_type == b"application/json"
    told = json.loads(answer.finish())
    whole = Response.model_validate(told)
    assert (whole.output_text, whole.instructions, whole.temperature) == ("Hi.", "Be brief.", 0.5)
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]
    assert told["tools"] == tools
    assert told["metadata"] == {"a": "b"}
    assert (told["store"], told["created_at"]) == (False, 1_700_000_000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (delta({"content": "H"}), "before it was complete"),
        (event({"error": {"message": "out of memory"}}), "out of memory"),
        (b"error: out of memory\n\n", "out of memory"),
        (b"data: {nonsense\n\n", "not understood"),
        (delta({"content": "H" * BYTES_MAX}), "longer than"),
    ],
)
def test_what_is_no_whole_answer_is_a_failure(data: bytes, words: str) -> None:
    with pytest.raises(UpstreamFailed, match=words):
        all_of(translation(stream=True), data)
    with pytest.raises(UpstreamFailed):
        all_of(translation(), data * 100)
