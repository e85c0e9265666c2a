from typing import Any

import pytest

from muster.connectors.openai_answer import Assembly
from muster.connectors.openai_request import Kind
from muster.errors import UpstreamFailed


def delta(index: int = 0, finish_reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": index, "delta": said, "finish_reason": finish_reason}]}


def assembled(kind: Kind, *chunks: dict[str, Any]) -> dict[str, Any]:
    assembly = Assembly(kind)
    for chunk in chunks:
        assembly.add(chunk)
    assert assembly.finished
    return assembly.result()


def test_content_and_reasoning_grow_by_pieces() -> None:
    answer = assembled(
        Kind.CHAT,
        delta(role="assistant", content=None),
        delta(reasoning_content="so "),
        delta(reasoning_content="it is"),
        delta(content="Par"),
        delta(content="is"),
        delta(finish_reason="stop"),
        {"choices": [], "usage": {"completion_tokens": 4}},
    )
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Paris", "reasoning_content": "so it is"}
    assert (choice["finish_reason"], answer["usage"], answer["id"]) == ("stop", {"completion_tokens": 4}, "x")


def test_calls_of_tools_are_put_together_by_their_index() -> None:
    answer = assembled(
        Kind.CHAT,
        delta(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
        delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        delta(finish_reason="tool_calls"),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_several_choices_grow_side_by_side() -> None:
    assembly = Assembly(Kind.CHAT)
    for chunk in (delta(1, content="b"), delta(0, content="a"), delta(0, "stop")):
        assembly.add(chunk)
    half = assembly.finished
    assembly.add(delta(1, "length"))
    assert (half, assembly.finished) == (False, True)
    assert [choice["message"]["content"] for choice in assembly.result()["choices"]] == ["a", "b"]


def test_a_completion_has_text_and_the_chances_of_its_tokens() -> None:
    answer = assembled(
        Kind.COMPLETION,
        {"choices": [{"index": 0, "text": "Par", "logprobs": {"content": [1]}}]},
        {"choices": [{"index": 0, "text": "is", "logprobs": {"content": [2], "note": "x"}, "finish_reason": "stop"}]},
    )
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {"index": 0, "finish_reason": "stop", "text": "Paris", "logprobs": {"content": [1, 2], "note": "x"}}
    ]


def test_an_answer_of_nothing_is_an_empty_text() -> None:
    answer = assembled(Kind.CHAT, delta(role="assistant"), delta(finish_reason="stop"))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}


def test_what_is_no_text_is_kept_as_it_came() -> None:
    answer = assembled(Kind.CHAT, delta(content="a", annotations=[1]), delta(finish_reason="stop"))
    assert answer["choices"][0]["message"]["annotations"] == [1]


def test_only_output_counts_as_a_piece() -> None:
    assembly = Assembly(Kind.CHAT)
    chunks: list[dict[str, Any]] = [
        delta(role="assistant", content=""),
        delta(content="a"),
        delta(finish_reason="stop"),
        {"usage": {}},
    ]
    brought = [assembly.add(chunk) for chunk in chunks]
    assert brought == [False, True, False, False]
    assert assembly.pieces == 1


def test_an_answer_without_choices_is_not_finished() -> None:
    assert not Assembly(Kind.CHAT).finished


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"delta": "a"}]},
        {"choices": [{"index": "a"}]},
        {"choices": [{"delta": {"tool_calls": [{"function": 5}]}}]},
    ],
)
def test_a_chunk_of_another_shape_is_the_servers_fault(chunk: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed, match="not understood"):
        Assembly(Kind.CHAT).add(chunk)
