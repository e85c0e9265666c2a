"""Server-sent events, framed once for all readers."""

from typing import Any

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"

_encode = msgspec.json.Encoder().encode


def frame(body: Any, event_id: str | None = None) -> bytes:
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"data: " + _encode(body) + b"\n\n"
