"""What is asked and said of answers that can be taken up again."""

import pytest

from muster.domain.service import Dialect
from muster.errors import InvalidInput
from muster.gateway.resuming.terms import (
    ASKED,
    Head,
    OffsetBeyondEnd,
    Question,
    Terms,
    check_offset,
    decode_opening,
    encode_opening,
    keep_s_asked,
    opening_of,
    secrets_of,
    stream_and_offset,
    take_head,
    without_secrets,
)


@pytest.mark.parametrize(
    ("asked", "kept_s"),
    [(b"60", 60.0), (b" 2.5 ", 2.5), (b"99999", 600.0), (b"Yes", 120.0), (b"true", 120.0), (b"no", None), (b"0", None)],
)
def test_an_answer_is_kept_for_as_long_as_is_asked_and_allowed(asked: bytes, kept_s: float | None) -> None:
    assert keep_s_asked({ASKED: asked}, 600.0) == kept_s
    assert keep_s_asked({ASKED: asked}, 0.0) is None


@pytest.mark.parametrize("asked", [b"", b"-1", b"1e9", b"nan", b"0.0", b"soon", b"1234567", b"60 s"])
def test_a_wish_that_says_nothing_is_refused(asked: bytes) -> None:
    with pytest.raises(InvalidInput, match="yes, no or a number") as refused:
        keep_s_asked({ASKED: asked}, 600.0)
    assert refused.value.field == "X-Muster-Resumable"


def test_a_url_names_an_answer_and_an_offset() -> None:
    assert stream_and_offset(b"/v1/streams/stream-1") == ("stream-1", 0)
    assert stream_and_offset(b"http://h:1/v1/streams/stream-1?a=b&offset=17") == ("stream-1", 17)
    with pytest.raises(InvalidInput, match="whole number"):
        stream_and_offset(b"/v1/streams/stream-1?offset=1.5")


def test_an_offset_lies_within_what_there_is() -> None:
    check_offset(5, 5)
    with pytest.raises(OffsetBeyondEnd, match="at most 5"):
        check_offset(6, 5)


def test_a_head_is_taken_when_it_is_whole_without_what_belongs_to_a_connection() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-a: b\r\ncontent-length: 4\r\nconnection: close\r\n"
        b"\r\nbo\r\n\r\ndy"
    )
    for end in range(len(answer) - 8):
        assert take_head(answer[:end]) is None
    found = take_head(answer)
    assert found is not None
    head, body = found
    assert head == Head(200, b"Content-Type: text/event-stream\r\nx-a: b\r\n", 4)
    assert body == b"bo\r\n\r\ndy"
    assert head.streamed
    assert not Head(200, b"content-type: application/json\r\n", None).streamed


def test_what_is_kept_of_an_answer_comes_back_the_same() -> None:
    terms = Terms(
        account="t",
        path="/v1/chat/completions",
        dialect=Dialect.OPENAI,
        correlation_id=b"req-1",
        keep_s=60.0,
        question=Question({b"x-priority": b"7"}, b"\x00{}"),
    )
    opening = opening_of(terms, Head(200, b"a: b\r\n", None))
    assert decode_opening(encode_opening(opening)) == opening


def test_credentials_are_not_kept_and_can_be_shown_anew() -> None:
    headers = {b"authorization": b"Bearer s", b"x-api-key": b"s", b"cookie": b"s", b"x-priority": b"7"}
    assert without_secrets(headers) == {b"x-priority": b"7"}
    assert without_secrets(headers) | secrets_of(headers) == headers
