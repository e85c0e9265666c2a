"""Whether a stream is whole: every one says so in its last line, and one that does not was cut. Pure."""

from typing import Any

import msgspec
from msgspec import Struct

from muster.gateway.dialects import anthropic, ollama, openai

_DONE = b"[DONE]"
_LINE_BYTES_MAX = 4_194_304  # Ollama's last line may hold the whole context as numbers
_STREAMS = frozenset(
    {openai.CHAT, openai.COMPLETIONS, openai.RESPONSES, ollama.CHAT, ollama.GENERATE, anthropic.MESSAGES}
)
_LAST_EVENTS = frozenset(
    {"message_stop", "error", "response.completed", "response.failed", "response.incomplete", "response.cancelled"}
)


class _LastLine(Struct):
    done: bool = False
    type: str = ""
    error: Any = None


_last_line = msgspec.json.Decoder(_LastLine)


def ending_of(path: str) -> "Ending | None":
    """Return what watches for the end of this path's streams; None when nothing is known of how they end."""
    return Ending() if path in _STREAMS else None


class Ending:
    """Keeps the last line that says something, in whatever pieces it comes."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b""

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
            return False
        return last.done or last.error is not None or last.type in _LAST_EVENTS
