"""How many tokens an answer has, told by the engine or else counted, without reading every piece of it.

Engines say it at the end of an answer, a few in its first bytes, so those are kept. In between only events are counted,
many at a time. What a model says cannot be taken for a count: within a string of JSON a quote has a backslash.
"""

import re

from msgspec import Struct

_HEAD_BYTES = 1024
_TAIL_BYTES = 4096
_HELD_BYTES_MAX = 16_384
_BYTES_PER_TOKEN = 4  # of English text, roughly

_NUMBER = re.compile(rb"\s*:\s*(\d{1,12})")
# OpenAI's usage, Anthropic's and that of OpenAI's responses, Ollama's last line. The first that is found counts.
_PROMPT = (b'"prompt_tokens"', b'"input_tokens"', b'"prompt_eval_count"')
_COMPLETION = (b'"completion_tokens"', b'"output_tokens"', b'"eval_count"')
# llama.cpp's timings; what it had read of the prompt before is told apart.
_PROMPT_NEW, _PROMPT_BEFORE, _PREDICTED = (b'"prompt_n"',), (b'"cache_n"',), (b'"predicted_n"',)


class Counts(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    estimated: bool


class Counted:
    """Takes an answer as it comes from the engine; its memory is bounded."""

    __slots__ = ("_events", "_head", "_held", "_held_bytes", "_mark", "_parts", "_past_bytes")

    def __init__(self) -> None:
        self._head = b""
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._events = self._past_bytes = 0  # of what is no longer held
        self._mark = b"\n"

    def take(self, data: bytes) -> None:
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES_MAX:
            self._let_go()

    def _let_go(self) -> None:
        """Keep the end, from the beginning of a line where there is one, and count what was before it."""
        data = b"".join(self._parts)
        if not self._head:
            self._see_head(data)
        cut = len(data) - _TAIL_BYTES
        cut = data.rfind(b"\n", 0, cut) + 1 or cut
        self._events += data.count(self._mark, 0, cut)
        if len(data) - cut > _HELD_BYTES_MAX // 2:  # a line as long as that is no event of a stream
            cut = len(data) - _TAIL_BYTES
        self._past_bytes += cut
        self._parts = [data[cut:]]
        self._held_bytes = len(data) - cut

    def _see_head(self, data: bytes) -> None:
        self._head = data[:_HEAD_BYTES]
        self._mark = b"\n" if self._head[:1] == b"{" else b"data:"

    def read(self, *, question_bytes: int, stream: bool, embedding: bool) -> Counts:
        """Say what it came to, after the answer has ended or been left."""
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        prompt = self._told(data, _PROMPT)
        completion = 0 if embedding else self._told(data, _COMPLETION)
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        if prompt is None and (timed := self._told(data, _PROMPT_NEW)) is not None:
            prompt = timed + (self._told(data, _PROMPT_BEFORE) or 0)
        if completion is None:
            completion = self._told(data, _PREDICTED)
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        if prompt is None:
            prompt = max(1, question_bytes // _BYTES_PER_TOKEN)
        if completion is None:
            completion = self._events_in(data) if stream else (self._past_bytes + len(data)) // _BYTES_PER_TOKEN
        return Counts(prompt, completion, estimated=True)

    def _told(self, data: bytes, names: tuple[bytes, ...]) -> int | None:
        told = _last(data, names)
        return _last(self._head, names) if told is None and self._head else told

    def _events_in(self, data: bytes) -> int:
        if not self._head:
            self._see_head(data)
        return max(0, self._events + data.count(self._mark) - data.count(b"[DONE]"))


def _last(data: bytes, names: tuple[bytes, ...]) -> int | None:
    """Return the number that stands behind the last of the first of these names."""
    for name in names:
        at = data.rfind(name)
        if at >= 0 and (number := _NUMBER.match(data, at + len(name))) is not None:
            return int(number[1])
    return None
