"""An OpenAI server's answer as an Ollama client understands it, piece by piece as it comes."""

from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from muster.clock import Clock
from muster.errors import UpstreamFailed
from muster.gateway.dialects import ollama
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import (
    Chunk,
    Count,
    FunctionDelta,
    Timings,
    ToolCallDelta,
    chunk_in,
    decode_chunk,
)
from muster.gateway.http.reply import JSON, NDJSON

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

_encode = msgspec.json.Encoder().encode


class _Vector(Struct):
    embedding: Raw


class _Vectors(Struct):
    data: list[_Vector]
    usage: Count | None = None


_vectors = msgspec.json.Decoder(_Vectors)


class Translation(Protocol):
    """`feed` returns what can go on already, `finish` the rest; both raise UpstreamFailed on what is no good answer."""

    @property
    def content_type(self) -> bytes: ...
    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


def translation(call: Call, clock: Clock, answer_bytes_max: int) -> Translation:
    if call.capability == "embedding":
        return _Embeddings(call, clock, answer_bytes_max)
    if call.stream:
        return _Streamed(call, clock)
    return _Whole(call, clock, answer_bytes_max)


def loaded(call: Call, clock: Clock, *, unload: bool) -> bytes:
    """Answer a request without a prompt: the engine has its model loaded all the time. Ollama never streams this."""
    line = _head(call, clock) | _piece(call, "") | {"done": True, "done_reason": "unload" if unload else "load"}
    return _encode(line)


class _Answer:
    """What is gathered over all pieces: tool calls, counts, times, the reason of the end."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._first_s: float | None = None
        self._count = Count()
        self._timings = Timings()
        self._tools: dict[int, ToolCallDelta] = {}
        self.finish_reason: str | None = None

    def take(self, chunk: Chunk) -> dict[str, Any] | None:
        """Return the piece to show, if there is one."""
        self._count = chunk.usage or self._count
        self._timings = chunk.timings or self._timings
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        said = choice.said
        for place, tool_call in enumerate(said.tool_calls or ()):
            self._gather(place if tool_call.index is None else tool_call.index, tool_call)
        if not said.content and not said.thinking:
            return None
        if self._first_s is None:
            self._first_s = self._clock.monotonic_s()
        return _piece(self._call, said.content or "", said.thinking)

    def _gather(self, index: int, delta: ToolCallDelta) -> None:
        known = self._tools.setdefault(index, ToolCallDelta(function=FunctionDelta(name="", arguments="")))
        known.id = delta.id or known.id
        known.function.name = (known.function.name or "") + (delta.function.name or "")
        known.function.arguments = (known.function.arguments or "") + (delta.function.arguments or "")

    def tool_calls(self) -> list[dict[str, Any]]:
        """Return the calls whole: Ollama's clients take the arguments as an object."""
        calls = []
        for index, gathered in sorted(self._tools.items()):
            try:
                arguments = msgspec.json.decode(gathered.function.arguments or "{}")
            except msgspec.DecodeError as error:
                raise UpstreamFailed(f"the engine called a tool with arguments that are no JSON: {error}") from error
            function = {"index": index, "name": gathered.function.name, "arguments": arguments}
            calls.append(({"id": gathered.id} if gathered.id else {}) | {"function": function})
        return calls

    def end(self) -> dict[str, Any]:
        """Return the members that only the last line has; times in nanoseconds."""
        now_s = self._clock.monotonic_s()
        first_s = now_s if self._first_s is None else self._first_s
        prompt_ms, predicted_ms = self._timings.prompt_ms, self._timings.predicted_ms
        end: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if self.finish_reason == "length" else "stop",
            "total_duration": int((now_s - self._started_s) * _NS_PER_S),
            "load_duration": 0,
            "prompt_eval_duration": int(
                (first_s - self._started_s) * _NS_PER_S if prompt_ms is None else prompt_ms * _NS_PER_MS
            ),
            "eval_duration": int((now_s - first_s) * _NS_PER_S if predicted_ms is None else predicted_ms * _NS_PER_MS),
        }
        if self._count.prompt_tokens is not None:
            end["prompt_eval_count"] = self._count.prompt_tokens
        if self._count.completion_tokens is not None:
            end["eval_count"] = self._count.completion_tokens
        return end


class _Streamed:
    """Server-sent events in, one JSON line for each out."""

    content_type = NDJSON

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._answer = _Answer(call, clock)
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self._line(line) for line in lines)

    def _line(self, line: bytes) -> bytes:
        chunk = chunk_in(line)
        piece = None if chunk is None else self._answer.take(chunk)
        return b"" if piece is None else _encode(_head(self._call, self._clock) | piece | {"done": False}) + b"\n"

    def finish(self) -> bytes:
        """Return the last line; the counts come after the last piece, so only the end tells that all is there."""
        rest = self._line(self._rest)
        answer = self._answer
        if answer.finish_reason is None:
            raise UpstreamFailed("the engine ended its answer before it was complete")
        head = _head(self._call, self._clock)
        lines = [rest]
        calls = answer.tool_calls()
        if calls:
            lines.append(_encode(head | _piece(self._call, "", None, calls) | {"done": False}) + b"\n")
        lines.append(_encode(head | _piece(self._call, "") | answer.end()) + b"\n")
        return b"".join(lines)


class _Collected:
    """An answer that can only be translated as a whole."""

    content_type = JSON

    def __init__(self, call: Call, clock: Clock, answer_bytes_max: int) -> None:
        self._call = call
        self._clock = clock
        self._bytes_max = answer_bytes_max
        self._parts: list[bytes] = []
        self._size = 0
        self._answer = _Answer(call, clock)

    def feed(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._bytes_max:
            raise UpstreamFailed(f"the engine's answer is longer than {self._bytes_max} bytes")
        self._parts.append(data)
        return b""


class _Whole(_Collected):
    def finish(self) -> bytes:
        answer = self._answer
        piece = answer.take(decode_chunk(b"".join(self._parts))) or _piece(self._call, "")
        calls = answer.tool_calls()
        if calls:
            piece["message"]["tool_calls"] = calls
        return _encode(_head(self._call, self._clock) | piece | answer.end())


class _Embeddings(_Collected):
    def finish(self) -> bytes:
        try:
            vectors = _vectors.decode(b"".join(self._parts))
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"the engine's embeddings are not understood: {error}") from error
        if self._call.path == ollama.EMBEDDINGS:
            return _encode({"embedding": vectors.data[0].embedding if vectors.data else []})
        answer = {"model": self._call.model, "embeddings": [vector.embedding for vector in vectors.data]}
        self._answer.take(Chunk(usage=vectors.usage))
        end = self._answer.end()
        return _encode(
            answer | {k: end[k] for k in ("total_duration", "load_duration", "prompt_eval_count") if k in end}
        )


def _head(call: Call, clock: Clock) -> dict[str, Any]:
    at = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    return {"model": call.model, "created_at": at.isoformat().replace("+00:00", "Z")}


def _piece(
    call: Call, content: str, thinking: str | None = None, tool_calls: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    extra = {"thinking": thinking} if thinking else {}
    if call.path == ollama.GENERATE:
        return {"response": content} | extra
    message: dict[str, Any] = {"role": "assistant", "content": content} | extra
    if tool_calls:
        message["tool_calls"] = tool_calls
    return {"message": message}
