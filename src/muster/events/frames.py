"""Server-sent events, framed once for all readers."""

from typing import Any

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"

_encode = msgspec.json.Encoder().encode


def frame(body: Any, event_id: str | None = None, event: str | None = None) -> bytes:
    """`event` is for clients that listen to a name; without it they get it as `message`."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + name + b"data: " + _encode(body) + b"\n\n"
