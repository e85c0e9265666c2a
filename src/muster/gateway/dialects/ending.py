"""Whether a stream is whole: every one says so in its last line, and one that does not was cut. Pure."""

from typing import Any

import msgspec
from msgspec import Struct

from muster.gateway.dialects import anthropic, ollama, openai

_DONE = b"[DONE]"
_LINE_BYTES_MAX = 4_194_304  # Ollama's last line may hold the whole context as numbers
# What is asked of a model besides never comes in lines that say how they end.
_UNSTREAMED = frozenset(
    {
        *(openai.EMBEDDINGS, openai.RERANK, openai.SCORE, anthropic.COUNT_TOKENS),
        *(ollama.EMBED, ollama.EMBEDDINGS),
    }
)
# Not every server of these speaks in OpenAI's events; what has no type ends where HTTP says so.
_LENIENT = frozenset({openai.SPEECH, openai.TRANSCRIPTIONS, openai.TRANSLATIONS, openai.IMAGES})
_LAST_EVENTS = frozenset(
    {
        *("message_stop", "error"),
        *("response.completed", "response.failed", "response.incomplete", "response.cancelled"),
        *("speech.audio.done", "transcript.text.done", "image_generation.completed"),
    }
)


class _LastLine(Struct):
    done: bool = False
    type: str = ""
    error: Any = None


_last_line = msgspec.json.Decoder(_LastLine)


def ending_of(path: str) -> "Ending | None":
    """Return what watches for the end of this path's streams; None for those that have none."""
    return None if path in _UNSTREAMED else Ending(typed_only=path in _LENIENT)


class Ending:
    """Keeps the last line that says something, in whatever pieces it comes."""

    __slots__ = ("_last", "_typed_only")

    def __init__(self, *, typed_only: bool = False) -> None:
        self._last = b""
        self._typed_only = typed_only

    def feed(self, data: bytes) -> None:
        text = self._last + data
        start = text.rfind(b"\n", 0, len(text.rstrip())) + 1
        self._last = text[start:] if len(text) - start <= _LINE_BYTES_MAX else text[-_LINE_BYTES_MAX:]

    @property
    def told(self) -> bool:
        """Tell whether the stream has said how it ended, be it with an error."""
        line = self._last.strip().removeprefix(b"data:").lstrip()
        if line == _DONE:
            return True
        try:
            last = _last_line.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._typed_only and self._last.endswith(b"\n")
        if self._typed_only and not last.type:
            return True
        return last.done or last.error is not None or last.type in _LAST_EVENTS
