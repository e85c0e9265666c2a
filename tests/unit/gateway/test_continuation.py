"""Which streams can be gone on with, and with which words."""

import json
from typing import Any

import pytest

from muster.errors import UpstreamFailed
from muster.gateway.continuation import Spliced, continuation, for_engine
from muster.gateway.dialects import ollama, openai

MESSAGES = [{"role": "user", "content": "Tell."}]


def call(path: str, **body: Any):
    parse = openai.parse if path.startswith("/v1") else ollama.parse
    return parse(path, json.dumps({"model": "m", "stream": True} | body).encode())


def event(content: str, **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "one", "choices": [{"delta": {"content": content}} | more]}).encode() + b"\n\n"


def line(content: str, **more: Any) -> bytes:
    return json.dumps({"model": "m", "response": content, "done": False} | more).encode() + b"\n"


def rest(asked: Any, *said: bytes) -> dict[str, Any] | None:
    found = continuation(asked, {})
    assert found is not None
    for piece in said:
        found.note(piece)
    beginning = found.begin()
    body = None if beginning is None else found.body(beginning)
    return None if body is None else json.loads(body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (openai.CHAT, {"messages": MESSAGES, "tools": [1]}),
        (openai.CHAT, {"messages": MESSAGES, "n": 2}),
        (openai.CHAT, {"messages": MESSAGES, "stream": False}),
        (openai.CHAT, {"messages": [{"role": "user", "content": "x", "images": ["y"]}]}),
        (openai.CHAT, {"messages": ["odd"]}),
        (openai.COMPLETIONS, {"prompt": ["a", "b"]}),
        (openai.COMPLETIONS, {"prompt": "a", "echo": True}),
        (ollama.GENERATE, {"prompt": "a"}),
        (ollama.CHAT, {"messages": MESSAGES, "format": "json"}),
    ],
)
def test_what_cannot_be_begun_in_the_middle_is_not_gone_on_with(path: str, body: dict[str, Any]):
    assert continuation(call(path, **body), {}) is None


@pytest.mark.parametrize(
    "body", [{"tools": [], "n": 1, "logprobs": False, "response_format": None}, {"temperature": 0.5, "seed": 7}]
)
def test_what_is_named_and_not_asked_for_does_not_hinder(body: dict[str, Any]):
    assert continuation(call(openai.CHAT, messages=MESSAGES, **body), {}) is not None


def test_other_paths_are_left_alone():
    asked = call(openai.CHAT, messages=MESSAGES)
    asked.path = "/v1/other"
    assert continuation(asked, {}) is None


def test_the_rest_is_asked_for_with_what_was_said_and_fewer_tokens():
    asked = call(openai.CHAT, messages=MESSAGES, max_tokens=10, temperature=0.5)
    found = rest(asked, event("On"), event("ce"), b'data: {"id"')
    assert found is not None
    assert found["messages"] == [*MESSAGES, {"role": "assistant", "content": "Once"}]
    assert (found["max_tokens"], found["temperature"]) == (8, 0.5)


def test_a_completion_goes_on_after_its_prompt():
    for path, more in ((openai.COMPLETIONS, {"max_tokens": None}), (ollama.GENERATE, {"raw": True})):
        said = line("On") + line("ce") if path == ollama.GENERATE else b'data: {"choices":[{"text":"Once"}]}\n\n'
        found = rest(call(path, prompt="Tell. ", **more), said)
        assert found is not None
        assert found["prompt"] == "Tell. Once"


@pytest.mark.parametrize(("bound", "expected"), [(10, 8), (-1, -1), (2, None)])
def test_ollamas_bound_lies_in_its_options(bound: int, expected: int | None):
    asked = call(ollama.GENERATE, prompt="x", raw=True, options={"num_predict": bound, "seed": 1})
    found = rest(asked, line("a"), line("b"))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found["options"] == {"num_predict": expected, "seed": 1}


def test_options_without_a_bound_stay():
    found = rest(call(ollama.GENERATE, prompt="x", raw=True, options={"seed": 1}), line("a"))
    assert found is not None
    assert found["options"] == {"seed": 1}


def test_nothing_is_left_to_say_when_the_bound_is_reached():
    assert rest(call(openai.CHAT, messages=MESSAGES, max_completion_tokens=1), event("Once")) is None


def test_before_any_word_the_same_is_asked_again():
    found = rest(call(openai.CHAT, messages=MESSAGES), b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n')
    assert found is not None
    assert found["messages"] == MESSAGES


@pytest.mark.parametrize(
    "said",
    [
        event("", finish_reason="stop"),
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n',
        b"data: [DONE]\n\n",
        b"data: no json\n\n",
        b"data: {}\n\n",
        b"data: " + b" " * 60_001 + b"\n\n",
    ],
)
def test_after_more_than_words_nothing_is_gone_on_with(said: bytes):
    assert rest(call(openai.CHAT, messages=MESSAGES), event("Once"), said) is None


def test_comments_and_counts_are_no_words():
    said = (b": a comment\n\n", b'data: {"choices":[],"usage":{}}\n\n', event("Once"))
    assert rest(call(openai.CHAT, messages=MESSAGES), *said) is not None


def test_what_was_said_is_kept_only_up_to_a_bound():
    asked = call(openai.CHAT, messages=MESSAGES)
    assert rest(asked, *[event("x" * 1000)] * 400) is None


def test_it_may_break_off_several_times_wherever_that_is():
    found = continuation(call(openai.CHAT, messages=MESSAGES), {})
    assert found is not None
    text = ""
    for part in range(5):
        for number in range(100):
            found.note(event(f"{part}-{number} "))
            text += f"{part}-{number} "
        found.note(event("never whole")[:-30])
        beginning = found.begin()
        assert beginning is not None
        assert (beginning.text, beginning.pieces) == (text, 100 * (part + 1))


def test_vllm_has_to_be_told_that_the_last_message_is_not_whole():
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    told = json.loads(for_engine(openai.CHAT, body, "vllm"))
    assert (told["continue_final_message"], told["add_generation_prompt"]) == (True, False)
    assert for_engine(openai.CHAT, body, "llamacpp") == body
    assert for_engine(openai.COMPLETIONS, body, "vllm") == body


def spliced(path: str = openai.CHAT, said: bytes = event("On")) -> Spliced:
    asked = call(path, messages=MESSAGES, prompt="x", raw=True)
    found = continuation(asked, {})
    assert found is not None
    found.note(said)
    beginning = found.begin()
    assert beginning is not None
    return Spliced(asked, beginning, "b/llama", None)


def test_pieces_that_follow_look_like_those_before_them_in_whatever_pieces_they_come():
    role = b'data: {"id":"two","choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    usage = b'data: {"id":"two","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    stream = role + event("ce").replace(b"one", b"two") + usage + b"data: [DONE]"
    for cut in range(len(stream)):
        splice = spliced()
        out = splice.feed(stream[:cut]) + splice.feed(stream[cut:]) + splice.finish()
        mark, first, counts, done = out.strip().split(b"\n\n")
        assert mark == b": continued by b/llama"
        assert json.loads(first[6:]) == {"id": "one", "choices": [{"delta": {"content": "ce"}}]}
        assert json.loads(counts[6:])["usage"] == {"prompt_tokens": 4, "completion_tokens": 3}
        assert done == b"data: [DONE]"


def test_ollamas_lines_are_marked_in_the_first_and_counted_in_the_last():
    splice = spliced(ollama.GENERATE, line("On"))
    out = splice.feed(line("ce") + line("", done=True, eval_count=1, prompt_eval_count=5)) + splice.finish()
    first, last = (json.loads(each) for each in out.splitlines())
    assert (first["response"], first["muster_continued_by"]) == ("ce", "b/llama")
    assert (last["eval_count"], last["prompt_eval_count"], "muster_continued_by" in last) == (2, 4, False)


@pytest.mark.parametrize("said", [b"data: {", b'data: {"error":{"message":"out of memory"}}', event("ce"), b""])
def test_an_end_that_is_none_is_an_error(said: bytes):
    def go_on() -> None:
        splice = spliced()
        splice.feed(said)
        splice.finish()

    with pytest.raises(UpstreamFailed):
        go_on()
