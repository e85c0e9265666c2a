"""An OpenAI server's answer as an Ollama client understands it, piece by piece as it comes."""

from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct, field

from muster.clock import Clock
from muster.errors import UpstreamFailed
from muster.gateway.dialects import ollama
from muster.gateway.dialects.call import Call
from muster.gateway.http.reply import JSON, NDJSON

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

_encode = msgspec.json.Encoder().encode


class _FunctionDelta(Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta = field(default_factory=_FunctionDelta)


class _Said(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCallDelta] | None = None


class _Choice(Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Count(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Timings(Struct):
    """llama.cpp's own measurement, better than what can be seen from here."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Count | None = None
    timings: _Timings | None = None
    error: Any = None


class _Vector(Struct):
    embedding: Raw


class _Vectors(Struct):
    data: list[_Vector]
    usage: _Count | None = None


_chunk = msgspec.json.Decoder(_Chunk)
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


def error_text(body: bytes) -> str:
    """Find the sentence in an engine's error, whatever its shape."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:500].decode(errors="replace").strip()
    return _message_of(content) or body[:500].decode(errors="replace")


def _message_of(content: Any) -> str:
    if isinstance(content, dict):
        for name in ("error", "message", "detail"):
            if content.get(name):
                return _message_of(content[name])
        return ""
    return content if isinstance(content, str) else str(content)


class _Answer:
    """What is gathered over all pieces: tool calls, counts, times, the reason of the end."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._first_s: float | None = None
        self._count = _Count()
        self._timings = _Timings()
        self._tools: dict[int, _ToolCallDelta] = {}
        self.finish_reason: str | None = None

    def take(self, chunk: _Chunk) -> dict[str, Any] | None:
        """Return the piece to show, if there is one."""
        if chunk.error is not None:
            raise UpstreamFailed(f"the engine failed: {_message_of(chunk.error)}")
        self._count = chunk.usage or self._count
        self._timings = chunk.timings or self._timings
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        said = choice.delta or choice.message or _Said(content=choice.text)
        for place, tool_call in enumerate(said.tool_calls or ()):
            self._gather(place if tool_call.index is None else tool_call.index, tool_call)
        thinking = said.reasoning_content or said.reasoning
        if not said.content and not thinking:
            return None
        if self._first_s is None:
            self._first_s = self._clock.monotonic_s()
        return _piece(self._call, said.content or "", thinking)

    def _gather(self, index: int, delta: _ToolCallDelta) -> None:
        known = self._tools.setdefault(index, _ToolCallDelta(function=_FunctionDelta(name="", arguments="")))
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
        field, _, value = line.partition(b":")
        value = value.strip()
        if field == b"error":  # llama.cpp's older servers name the field so
            raise UpstreamFailed(f"the engine failed: {error_text(value)}")
        if field != b"data" or value == b"[DONE]" or not value:
            return b""
        piece = self._answer.take(_decode(value))
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
        piece = answer.take(_decode(b"".join(self._parts))) or _piece(self._call, "")
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
        self._answer.take(_Chunk(usage=vectors.usage))
        end = self._answer.end()
        return _encode(
            answer | {k: end[k] for k in ("total_duration", "load_duration", "prompt_eval_count") if k in end}
        )


def _decode(data: bytes) -> _Chunk:
    try:
        return _chunk.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamFailed(f"the engine's answer is not understood: {error}") from error


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
