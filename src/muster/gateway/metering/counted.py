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

_COUNTS = re.compile(
    rb'"(prompt_tokens|completion_tokens|input_tokens|output_tokens|prompt_eval_count|eval_count|prompt_n|cache_n|predicted_n)"'
    rb"\s*:\s*(\d{1,12})"
)
# OpenAI's usage, Anthropic's and that of OpenAI's responses, Ollama's last line, llama.cpp's timings. The first counts.
_PROMPT = (b"prompt_tokens", b"input_tokens", b"prompt_eval_count", b"prompt_n")
_PROMPT_IN_ALL = frozenset(_PROMPT) - {b"prompt_n"}
_COMPLETION = (b"completion_tokens", b"output_tokens", b"eval_count", b"predicted_n")


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
        data = b"".join(self._parts)
        if not self._head:
            self._see_head(data)
        found = dict(_COUNTS.findall(self._head)) | dict(_COUNTS.findall(data))
        prompt = _first(found, _PROMPT)
        if prompt is not None and not found.keys() & _PROMPT_IN_ALL:
            prompt += int(found.get(b"cache_n", 0))  # llama.cpp tells apart what it had read before
        completion = 0 if embedding else _first(found, _COMPLETION)
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        if completion is None:
            if stream:
                events = self._events + data.count(self._mark)
                completion = max(0, events - data.count(b"[DONE]"))
            else:
                completion = (self._past_bytes + len(data)) // _BYTES_PER_TOKEN
        return Counts(
            max(1, question_bytes // _BYTES_PER_TOKEN) if prompt is None else prompt, completion, estimated=True
        )


def _first(found: dict[bytes, bytes], names: tuple[bytes, ...]) -> int | None:
    return next((int(found[name]) for name in names if name in found), None)
