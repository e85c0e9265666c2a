"""What is kept of an answer as it comes, and how many tokens it has: told by the engine or else counted.

Engines say it at the end of an answer, a few in its first bytes, so those are kept. In between only events are counted,
many at a time. What a model says cannot be taken for a count: within a string of JSON a quote has a backslash.
"""

import re

from msgspec import Struct

from muster.gateway.packed import Packed

_HEAD_BYTES = 1024
_HELD_BYTES_MAX = 16_384
_HELD_OF_STREAM_BYTES_MAX = 6144  # there are many at once, and what their ends tell is short
_TAIL_SHARE = 4  # of what may be held so much is, at least
_LINE_BYTES_MAX = 4_194_304  # Ollama's last line may hold the whole context as numbers
_BYTES_PER_TOKEN = 4  # of English text, roughly

_NUMBER = re.compile(rb"\s*:\s*(\d{1,12})")
# OpenAI's usage, Anthropic's and that of OpenAI's responses, Ollama's last line. The first that is found counts.
_PROMPT = (b'"prompt_tokens"', b'"input_tokens"', b'"prompt_eval_count"')
_COMPLETION = (b'"completion_tokens"', b'"output_tokens"', b'"eval_count"')
# llama.cpp's timings; what it had read of the prompt before is told apart.
_PROMPT_NEW, _PROMPT_BEFORE, _PREDICTED = (b'"prompt_n"',), (b'"cache_n"',), (b'"predicted_n"',)


class Counts(Struct, frozen=True, gc=False):
    prompt_tokens: int
    completion_tokens: int
    estimated: bool


class Counted:
    """Takes an answer as it comes from the engine; its memory is bounded. `held` is what has come, or the end of it.

    Of a stream the last line is held whole: it says whether the stream is.
    """

    __slots__ = ("_buffer", "_events", "_head", "_least", "_line_max", "_mark", "_most", "_packed", "_past", "held")

    def __init__(self, *, stream: bool) -> None:
        self._buffer = bytearray()
        self.held: bytes | bytearray = self._buffer
        self._head = b""
        self._events = self._past = 0  # of what is no longer held, the latter in bytes
        self._mark = b"\n"
        self._least = self._most = _HELD_OF_STREAM_BYTES_MAX if stream else _HELD_BYTES_MAX
        self._line_max = _LINE_BYTES_MAX if stream else _HELD_BYTES_MAX // 2
        self._packed: Packed | None = None

    def keep_all(self, bytes_max: int) -> None:
        """Keep the answer from its beginning on, as long as it is no longer than that; to be said before it comes."""
        self._packed = Packed(bytes_max)

    def take(self, data: bytes) -> None:
        # One buffer for each answer: thousands of pieces that are kept cost more than they say.
        held = self._buffer
        held += data
        if len(held) > self._most:
            self._let_go(held)

    def end(self, data: bytes) -> None:
        """Take the last piece; an answer that is in one is not copied."""
        if self.held:
            self.take(data)
        else:
            self.held = data

    def whole(self) -> bytes | None:
        """Return all that has come; None when it is no longer kept."""
        if not self._past:
            return bytes(self.held)
        return None if self._packed is None else self._packed.read(self.held)

    def _let_go(self, held: bytearray) -> None:
        """Keep the end, from the beginning of a line where there is one, and count what was before it."""
        if not self._head:
            self._see_head()
        tail = self._least // _TAIL_SHARE
        cut = held.rfind(b"\n", 0, len(held) - tail) + 1
        self._events += held.count(self._mark, 0, cut)
        if len(held) - cut > self._line_max:
            cut = len(held) - tail
        self._past += cut
        if cut and self._packed is not None and not self._packed.add(held[:cut]):
            self._packed = None
        del held[:cut]
        self._most = max(self._least, min(2 * len(held), self._line_max))

    def _see_head(self) -> None:
        self._head = bytes(self.held[:_HEAD_BYTES])
        self._mark = b"\n" if self._head[:1] == b"{" else b"data:"

    def read(self, *, question_bytes: int, stream: bool, embedding: bool) -> Counts:
        """Say what it came to, after the answer has ended or been left."""
        held = self.held
        prompt = _last(held, _PROMPT)
        completion = 0 if embedding else _last(held, _COMPLETION)
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        prompt = self._told(_PROMPT) if prompt is None else prompt
        completion = self._told(_COMPLETION) if completion is None else completion
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        if prompt is None and (timed := self._told(_PROMPT_NEW)) is not None:
            prompt = timed + (self._told(_PROMPT_BEFORE) or 0)
        if completion is None:
            completion = self._told(_PREDICTED)
        if prompt is not None and completion is not None:
            return Counts(prompt, completion, estimated=False)
        if prompt is None:
            prompt = max(1, question_bytes // _BYTES_PER_TOKEN)
        if completion is None:
            completion = self._events_seen() if stream else (self._past + len(self.held)) // _BYTES_PER_TOKEN
        return Counts(prompt, completion, estimated=True)

    def _told(self, names: tuple[bytes, ...]) -> int | None:
        told = _last(self.held, names)
        return _last(self._head, names) if told is None and self._head else told

    def _events_seen(self) -> int:
        if not self._head:
            self._see_head()
        return max(0, self._events + self.held.count(self._mark) - self.held.count(b"[DONE]"))


def _last(data: bytes | bytearray, names: tuple[bytes, ...]) -> int | None:
    """Return the number that stands behind the last of the first of these names."""
    for name in names:
        at = data.rfind(name)
        if at >= 0 and (number := _NUMBER.match(data, at + len(name))) is not None:
            return int(number[1])
    return None
