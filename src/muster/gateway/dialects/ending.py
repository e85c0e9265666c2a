"""Whether a stream is whole: every one says so in its last line, and one that does not was cut. Pure."""

from typing import Any

import msgspec
from msgspec import Struct

from muster.gateway.dialects import anthropic, ollama, openai

_DONE = b"[DONE]"
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


def tells_its_end(path: str) -> bool:
    """Tell whether streams of this path say at their end that it is one."""
    return path in _STREAMS


def has_told_its_end(stream: bytes | bytearray) -> bool:
    """Tell whether a stream has said how it ended, be it with an error; only its last line has to be there."""
    text = stream.rstrip()
    line = bytes(text[text.rfind(b"\n") + 1 :]).strip().removeprefix(b"data:").lstrip()
    if line == _DONE:
        return True
    try:
        last = _last_line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return last.done or last.error is not None or last.type in _LAST_EVENTS
