from typing import Any

import msgspec
import pytest

from muster.domain.service import Dialect
from muster.gateway.dialects.call import Call
from muster.gateway.routing.conversation import conversation

LONG = "You are a careful assistant. " * 100


def call(model: str = "m", **body: Any) -> Call:
    return Call(
        dialect=Dialect.OPENAI, path="/v1/chat/completions", model=model, stream=True, body=msgspec.json.encode(body)
    )


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def test_a_session_by_header_is_one_conversation_of_one_model() -> None:
    one = {b"x-session-id": b"s1"}
    assert conversation(call(messages=said("a")), one) == conversation(call(messages=said("b")), one)
    assert conversation(call(), one) != conversation(call(), {b"x-session-id": b"s2"})
    assert conversation(call("m"), one) != conversation(call("n"), one)
    assert conversation(call(), {b"x-session-id": b""}) is None


@pytest.mark.parametrize("name", ["prompt_cache_key", "session_id", "user"])
def test_a_session_may_be_named_in_the_body(name: str) -> None:
    one, other = call(**{name: "s1"}, messages=said(LONG)), call(**{name: "s1"}, messages=said("b", LONG))
    assert conversation(one, {}) == conversation(other, {}) is not None
    assert conversation(one, {}) != conversation(call(**{name: "s2"}, messages=said(LONG)), {})
    assert conversation(call(**{name: "s1"}, messages=said("short")), {}) is None
    unnamed = call(messages=said(LONG))
    assert conversation(call(**{name: ""}, messages=said(LONG)), {}) == conversation(unnamed, {})


def test_a_long_talk_goes_on_where_it_began_and_another_one_elsewhere() -> None:
    begun = conversation(call(messages=said(LONG, "first")), {})
    assert begun == conversation(call(messages=said(LONG, "first", "answer", "second")), {}) is not None
    assert begun != conversation(call(messages=said(LONG, "another")), {})
    assert conversation(call(prompt=LONG), {}) is not None


def test_a_response_goes_on_where_its_input_began() -> None:
    begun = conversation(call(instructions=LONG, input=said("first")), {})
    grown = said("first", "answer", "second")
    assert conversation(call(input=said(LONG, "a")), {}) == conversation(call(input=said(LONG, "a", "b")), {})
    assert begun != conversation(call(instructions=LONG, input=grown), {}) is not None  # not yet two to begin with
    assert conversation(call(input=LONG + "a"), {}) is not None


@pytest.mark.parametrize("body", [{"messages": said("short")}, {"messages": [], "x": LONG}, {"messages": LONG}, {}])
def test_what_is_short_or_cannot_be_read_is_no_conversation(body: dict[str, Any]) -> None:
    assert conversation(call(**body), {}) is None


def test_a_conversation_is_a_number_of_56_bits() -> None:
    number = conversation(call(), {b"x-session-id": b"s1"})
    assert number is not None
    assert 0 <= number < 2**56
