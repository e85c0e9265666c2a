"""What an OpenAI server says in an answer to a chat, whole or in pieces, as far as it is translated."""

from typing import Any

import msgspec
from msgspec import Struct, field

from muster.errors import UpstreamFailed


class FunctionDelta(Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta = field(default_factory=FunctionDelta)


class Said(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None

    @property
    def thinking(self) -> str | None:
        """Return what servers tell under one name or the other."""
        return self.reasoning_content or self.reasoning


class Choice(Struct):
    delta: Said | None = None
    message: Said | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> Said:
        return self.delta or self.message or Said(content=self.text)


class PromptDetails(Struct):
    cached_tokens: int | None = None


class CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class Count(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Timings(Struct):
    """llama.cpp's own measurement, better than what can be seen from here."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class Chunk(Struct):
    id: str | None = None
    choices: list[Choice] = []
    usage: Count | None = None
    timings: Timings | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(Chunk)


def decode_chunk(data: bytes) -> Chunk:
    """Read a piece, or a whole answer; raise UpstreamFailed when it says that something went wrong, or says nothing."""
    try:
        chunk = _chunk.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamFailed(f"the engine's answer is not understood: {error}") from error
    if chunk.error is not None:
        raise UpstreamFailed(f"the engine failed: {message_of(chunk.error)}")
    return chunk


def chunk_in(line: bytes) -> Chunk | None:
    """Read a line of a stream of events; None for one that has no piece of the answer."""
    name, _, value = line.partition(b":")
    value = value.strip()
    if name == b"error":  # llama.cpp's older servers name the field so
        raise UpstreamFailed(f"the engine failed: {error_text(value)}")
    return decode_chunk(value) if name == b"data" and value and value != b"[DONE]" else None


def error_text(body: bytes) -> str:
    """Find the sentence in an engine's error, whatever its shape."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:500].decode(errors="replace").strip()
    return message_of(content) or body[:500].decode(errors="replace")


def message_of(content: Any) -> str:
    if isinstance(content, dict):
        for name in ("error", "message", "detail"):
            if content.get(name):
                return message_of(content[name])
        return ""
    return content if isinstance(content, str) else str(content)
