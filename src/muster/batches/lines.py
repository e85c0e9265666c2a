"""Requests of a batch: read line by line, each a job whose id is made of its batch and line."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from msgspec import Struct

from muster.domain.batch import Batch, LineError, Slice
from muster.domain.job import BACKGROUND_PRIORITY, JobSpec
from muster.errors import InvalidInput
from muster.ids import JobId

SERVICE = "openai"
KINDS = {"/v1/chat/completions": "chat", "/v1/completions": "completion", "/v1/embeddings": "embedding"}
LINES_MAX = 50_000
LINES_PER_SLICE = 100
ERRORS_MAX = 100

_CUSTOM_ID_CHARS_MAX = 512
_ATTEMPT_S_MAX = 3600.0
_RETRIES = 3
_SPAN_MAX = 1000  # of a slice, empty lines included

CheckPayload = Callable[[Any], object]  # raises InvalidInput naming the field


class _Line(Struct):
    custom_id: str
    method: str
    url: str
    body: dict[str, Any]


_line = msgspec.json.Decoder(_Line)


class Request(Struct, frozen=True):
    custom_id: str
    model: str
    payload: dict[str, Any]


class BadLine(InvalidInput):
    """A line that cannot be a request; `error` is how that is told."""

    def __init__(self, code: str, message: str, line: int, param: str | None = None) -> None:
        super().__init__(message, field=param)
        self.error = LineError(code=code, message=message, line=line, param=param)


def read_request(raw: bytes, number: int, endpoint: str, check: CheckPayload, bytes_max: int) -> Request:
    """Raise BadLine."""
    if len(raw) > bytes_max:
        raise BadLine("line_too_long", f"a line may have {bytes_max} bytes, this one has more", number)
    try:
        line = _line.decode(raw)
    except msgspec.ValidationError as error:
        raise BadLine("invalid_request", f"this line is no request: {error}", number) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadLine("invalid_json_line", "this line is not parseable as valid JSON", number) from None
    if not 1 <= len(line.custom_id) <= _CUSTOM_ID_CHARS_MAX:
        text = f"custom_id must have 1 to {_CUSTOM_ID_CHARS_MAX} characters"
        raise BadLine("invalid_custom_id", text, number, "custom_id")
    if line.method != "POST":
        raise BadLine("invalid_method", f"method must be POST, not {line.method[:20]!r}", number, "method")
    if line.url != endpoint:
        text = f"url is {line.url[:100]!r}, and the batch's endpoint is {endpoint}"
        raise BadLine("mismatched_url", text, number, "url")
    model = line.body.get("model")
    if not isinstance(model, str) or not model:
        raise BadLine("missing_required_parameter", "body.model must say which model", number, "body.model")
    if line.body.get("stream"):
        raise BadLine("invalid_request", "body.stream must not be set: nobody reads it", number, "body.stream")
    payload = line.body | {"kind": KINDS[endpoint]}
    try:
        check(payload)
    except InvalidInput as error:
        param = (error.field or "").replace("payload", "body", 1) or None
        raise BadLine("invalid_request", error.message, number, param) from None
    return Request(line.custom_id, model, payload)


def job_id_of(batch_id: str, line: int) -> JobId:
    return JobId(f"{batch_id}-{line}")


def batch_of(job_id: str) -> str | None:
    """Return the batch that a job's id speaks of."""
    batch_id, dash, line = job_id.rpartition("-")
    return batch_id if dash and line.isdigit() and batch_id.startswith("batch-") else None


def job_of(batch: Batch, line: int, request: Request, window_s: float) -> JobSpec:
    """Return a background job: it is begun beside nobody who waits for an answer."""
    return JobSpec(
        job_id=job_id_of(batch.batch_id, line),
        service_required=SERVICE,
        payload=request.payload,
        priority=BACKGROUND_PRIORITY,
        max_retries=_RETRIES,
        timeout_s=max(1.0, min(window_s, _ATTEMPT_S_MAX)),
        workflow_id=batch.batch_id,
        step_number=line,
        submitted_by=batch.owner,
        traceparent=batch.traceparent,
    )


class Cutter:
    """Finds slices while lines go by."""

    def __init__(self) -> None:
        self._slices: list[Slice] = []
        self._first = self._last = self._start = self._end = self._lines = 0

    def add(self, number: int, start: int, end: int) -> None:
        if self._lines == LINES_PER_SLICE or (self._lines and number - self._first >= _SPAN_MAX):
            self._cut()
        if not self._lines:
            self._first, self._start = number, start
        self._lines += 1
        self._last, self._end = number, end

    def slices(self) -> tuple[Slice, ...]:
        if self._lines:
            self._cut()
        return tuple(self._slices)

    def _cut(self) -> None:
        made = Slice(first_line=self._first, last_line=self._last, start=self._start, end=self._end)
        self._slices.append(made)
        self._lines = 0


async def lines_of(
    chunks: AsyncIterator[bytes], bytes_max: int, first_line: int = 1
) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """Yield number, first and last byte, and text of each line that is not empty; too long ones are cut short.

    Bytes count from where `chunks` begin. Of a line never more than `bytes_max` and a chunk is held.
    """
    number, start, held, dropped = first_line, 0, bytearray(), 0
    async for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            held += piece
            end = start + dropped + len(held) + 1
            if held.strip():
                yield number, start, end, bytes(held)
            number, start, held, dropped = number + 1, end, bytearray(), 0
        held += pieces[-1]
        if len(held) > bytes_max + 1:  # one more than may be: it is seen to be too long
            dropped += len(held) - bytes_max - 1
            del held[bytes_max + 1 :]
    if held.strip():
        yield number, start, start + dropped + len(held), bytes(held)
