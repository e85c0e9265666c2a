"""Lines of a batch: cut out of any chunks, judged, and made into jobs."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.batches import lines
from muster.connectors.openai import OpenAIConnector
from muster.domain.batch import Batch, LineError

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def raw(**fields: Any) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": BODY} | fields).encode()


def read(text: bytes, endpoint: str = CHAT) -> lines.Request:
    return lines.read_request(text, 7, endpoint, OpenAIConnector.check, 1000)


def refused(text: bytes, endpoint: str = CHAT) -> LineError:
    with pytest.raises(lines.BadLine) as caught:
        read(text, endpoint)
    assert caught.value.error.line == 7
    return caught.value.error


async def cut(chunks: list[bytes], bytes_max: int = 1000, first: int = 1) -> list[tuple[int, int, int, bytes]]:
    async def coming() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [line async for line in lines.lines_of(coming(), bytes_max, first)]


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        (CHAT, BODY, "chat"),
        ("/v1/completions", {"model": "m", "prompt": "x"}, "completion"),
        ("/v1/embeddings", {"model": "m", "input": ["x"]}, "embedding"),
    ],
)
def test_a_request_becomes_the_payload_of_its_kind(endpoint: str, body: dict[str, Any], kind: str) -> None:
    request = read(raw(url=endpoint, body=body), endpoint)
    assert request == lines.Request("a", "m", body | {"kind": kind})


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (b"[]", "invalid_request", None),
        (raw(body=None), "invalid_request", None),
        (raw(custom_id=""), "invalid_custom_id", "custom_id"),
        (raw(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (raw(method="GET"), "invalid_method", "method"),
        (raw(url="/v1/completions"), "mismatched_url", "url"),
        (raw(body=BODY | {"model": 5}), "missing_required_parameter", "body.model"),
        (raw(body={"messages": []}), "missing_required_parameter", "body.model"),
        (raw(body=BODY | {"stream": True}), "invalid_request", "body.stream"),
        (raw(body={"model": "m", "messages": []}), "invalid_request", "body.messages"),
        (raw(body=BODY | {"user": "x" * 2000}), "line_too_long", None),
    ],
)
def test_what_is_wrong_is_told_by_code_and_place(text: bytes, code: str, param: str | None) -> None:
    error = refused(text)
    assert (error.code, error.param) == (code, param)


def test_a_job_is_known_by_its_batch_and_line_and_waits_for_everybody() -> None:
    batch = Batch(
        batch_id="batch-1",
        endpoint=CHAT,
        input_file_id="file-1",
        input_place=("o", "n"),
        completion_window="24h",
        created_at_ms=0,
        expires_at_ms=1,
        owner="t",
        traceparent="00-trace",
    )
    job = lines.job_of(batch, 12, read(raw()), window_s=1e9)

    assert (job.job_id, job.priority, job.workflow_id, job.submitted_by) == ("batch-1-12", 0, "batch-1", "t")
    assert (job.timeout_s, job.traceparent) == (3600, "00-trace")
    assert lines.job_of(batch, 12, read(raw()), window_s=-5).timeout_s == 1
    assert lines.batch_of(job.job_id) == "batch-1"
    assert [lines.batch_of(other) for other in ("job-12", "batch-x", "batch-", "mine")] == [None] * 4


async def test_lines_are_counted_with_the_empty_ones_and_given_without_them() -> None:
    found = await cut([b"one\n\n  \r\ntw", b"o\nthree"])
    assert [(number, text) for number, _, _, text in found] == [(1, b"one"), (4, b"two"), (5, b"three")]


async def test_a_line_without_end_is_not_held_in_memory() -> None:
    ((number, start, end, text),) = await cut([b"x" * 100] * 50, bytes_max=250)
    assert (number, start, end) == (1, 0, 5000)
    assert len(text) == 251
    after = await cut([b"x" * 100, b"x" * 100 + b"\nok\n"], bytes_max=50)
    assert [(number, start, end) for number, start, end, _ in after] == [(1, 0, 201), (2, 201, 204)]


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
async def test_however_it_is_cut_into_chunks_the_lines_and_places_are_the_same(data: bytes, sizes: list[int]) -> None:
    chunks, rest = [], data
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    found = await cut([*chunks, rest])

    assert [text for *_, text in found] == [text for text in data.split(b"\n") if text.strip()]
    for number, start, end, text in found:
        assert data[start:end].rstrip(b"\n") == text.rstrip(b"\n") or data[start:end] in {text, text + b"\n"}
        assert number == data[:start].count(b"\n") + 1


async def test_slices_give_the_same_lines_again() -> None:
    data = b"".join(b"line %d\n\n" % number for number in range(250))
    cutter = lines.Cutter()
    for number, start, end, _ in await cut([data]):
        cutter.add(number, start, end)
    slices = cutter.slices()

    assert [(part.first_line, part.last_line) for part in slices] == [(1, 199), (201, 399), (401, 499)]
    again = [line[3] for part in slices for line in await cut([data[part.start : part.end]], first=part.first_line)]
    assert again == [b"line %d" % number for number in range(250)]
    assert not any(part.done for part in slices)
    assert lines.Cutter().slices() == ()


def test_a_slice_spans_only_so_many_lines_however_empty() -> None:
    cutter = lines.Cutter()
    for number in (1, 900, 5000):
        cutter.add(number, number, number + 1)
    assert [(part.first_line, part.last_line) for part in cutter.slices()] == [(1, 900), (5000, 5000)]
