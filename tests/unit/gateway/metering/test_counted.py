"""How many tokens an answer has, whatever way it comes in."""

import json

import pytest

from muster.gateway.metering.counted import Counted, Counts

DELTA = b'data: {"choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def counted(
    *pieces: bytes, question_bytes: int = 40, stream: bool = True, embedding: bool = False
) -> tuple[int, int, bool]:
    meter = Counted(stream=stream)
    for piece in pieces:
        meter.take(piece)
    found: Counts = meter.read(question_bytes=question_bytes, stream=stream, embedding=embedding)
    return found.prompt_tokens, found.completion_tokens, found.estimated


def said(body: object) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}, (7, 5, False)),
        ({"content": [], "usage": {"input_tokens": 7, "output_tokens": 5}}, (7, 5, False)),
        ({"message": {}, "prompt_eval_count": 7, "eval_count": 5}, (7, 5, False)),
        ({"choices": [], "timings": {"prompt_n": 7, "prompt_ms": 9, "predicted_n": 5}}, (7, 5, False)),
        ({"choices": [], "timings": {"cache_n": 4, "prompt_n": 3, "predicted_n": 5}}, (7, 5, False)),
        (
            {"usage": {"prompt_tokens": 7, "completion_tokens": 5}, "timings": {"prompt_n": 1, "predicted_n": 1}},
            (7, 5, False),
        ),
        ({"choices": [], "usage": None}, (10, 7, True)),
    ],
)
def test_a_whole_answer_says_it_itself(body: object, expected: tuple[int, int, bool]) -> None:
    assert counted(said(body), stream=False) == expected


def test_a_model_that_speaks_of_counts_is_not_believed() -> None:
    text = '"usage": {"prompt_tokens": 99, "completion_tokens": 99}'

    assert counted(b"data: " + said({"choices": [{"delta": {"content": text}}]}) + b"\n\n" + DONE) == (10, 1, True)


def test_a_stream_with_usage_in_its_last_event_is_exact_however_it_is_cut() -> None:
    last = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":500}}\n\n'
    stream = DELTA * 500 + last + DONE

    assert counted(stream) == (7, 500, False)
    assert counted(*(stream[at : at + 1000] for at in range(0, len(stream), 1000))) == (7, 500, False)
    assert counted(*(stream[at : at + 3] for at in range(0, len(stream), 3))) == (7, 500, False)


@pytest.mark.parametrize("size", [7, 1000, 10**6])
def test_a_stream_without_usage_is_counted_by_its_events(size: int) -> None:
    stream = DELTA * 500 + DONE

    assert counted(*(stream[at : at + size] for at in range(0, len(stream), size))) == (10, 500, True)


def test_lines_of_json_are_counted_one_by_one() -> None:
    lines = [said({"message": {"content": "x"}, "done": False}) + b"\n"] * 900

    assert counted(*lines) == (10, 900, True)
    assert counted(*lines, said({"done": True, "prompt_eval_count": 3, "eval_count": 900}) + b"\n") == (3, 900, False)


def test_an_embedding_has_no_completion_and_may_tell_its_prompt_first_or_last() -> None:
    numbers = ",".join(["0.123456789"] * 10_000).encode()
    first = b'{"object":"list","usage":{"prompt_tokens":9,"total_tokens":9},"data":[' + numbers + b"]}"
    last = b'{"data":[' + numbers + b'],"usage":{"prompt_tokens":9,"total_tokens":9}}'

    for body in (first, last):
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        assert counted(*pieces, stream=False, embedding=True) == (9, 0, False)


def test_an_answer_that_tells_nothing_is_estimated_by_its_length() -> None:
    assert counted(b"x" * 100_000, stream=False) == (10, 25_000, True)
    assert counted(question_bytes=1) == (1, 0, True)


def test_what_is_held_of_a_long_answer_stays_small() -> None:
    meter = Counted(stream=False)
    for _ in range(200):
        meter.take(DELTA * 50)
    meter.take(b"x" * 100_000)

    assert len(meter.held) <= 16_384
    assert meter.whole() is None


def test_what_is_held_of_a_stream_is_less_yet() -> None:
    meter = Counted(stream=True)
    for _ in range(5000):
        meter.take(DELTA)
        assert len(meter.held) <= 6144


def test_of_a_stream_the_last_line_is_held_whole_but_not_without_bound() -> None:
    meter = Counted(stream=True)
    meter.take(DELTA * 500 + b"x" * 100_000)
    assert meter.held == b"x" * 100_000

    for _ in range(60):
        meter.take(b"x" * 100_000)
    assert len(meter.held) < 4_300_000


def words(count: int) -> bytes:
    return b"".join(b'data: {"choices":[{"delta":{"content":" %d"}}]}\n\n' % number for number in range(count))


@pytest.mark.parametrize("size", [1, 53, 1000, 20_000])
def test_all_of_a_stream_is_kept_as_long_as_that_is_wanted(size: int) -> None:
    meter = Counted(stream=True)
    meter.keep_all(100_000)
    stream = words(1500)
    for at in range(0, len(stream), size):
        meter.take(stream[at : at + size])

    assert meter.whole() == stream
    assert meter.read(question_bytes=40, stream=True, embedding=False) == Counts(10, 1500, estimated=True)
    meter.take(words(1000))
    assert meter.whole() is None


def test_a_line_that_does_not_end_is_kept_as_well() -> None:
    meter = Counted(stream=True)
    meter.keep_all(100_000)
    for _ in range(90):
        meter.take(b"x" * 1000)
    assert meter.whole() == b"x" * 90_000

    meter.take(b"x" * 20_000)
    assert meter.whole() == b"x" * 110_000, "it is there, as the last line is held"


def test_an_answer_in_one_piece_is_read_where_it_lies() -> None:
    whole = said({"usage": {"prompt_tokens": 7, "completion_tokens": 5}})
    meter = Counted(stream=False)
    meter.end(whole)
    assert meter.held is whole

    meter = Counted(stream=False)
    meter.take(whole[:20])
    meter.end(whole[20:])
    assert bytes(meter.held) == whole
