"""Server-sent events (HTML standard, 9.2): written once for all readers, and read however their bytes arrive."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from muster.errors import UpstreamFailed

KEEP_ALIVE = b": keep-alive\n\n"
EVENT_BYTES_MAX = 1_048_576
SNAPSHOT_BYTES_MAX = 268_435_456  # a large fleet's whole state is one event

_BOM = b"\xef\xbb\xbf"
_encode = msgspec.json.Encoder().encode


def frame(body: Any, event_id: str | None = None, event: str | None = None) -> bytes:
    """`event` is for clients that listen to a name; without it they get it as `message`."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + name + b"data: " + _encode(body) + b"\n\n"


class ServerEvent(Struct, frozen=True):
    """`id` is the last one that the stream has given so far: from there it is taken up again."""

    data: bytes
    id: str | None = None
    event: str = "message"


class EventReader:
    """Cuts arriving bytes into events. What has no end when the stream ends is none."""

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._line = bytearray()  # so far
        self._after_cr = False  # a line end that may be half of one
        self._begun = False
        self._id: str | None = None
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Return the events that this completes; UpstreamFailed when one is too long."""
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        events = []
        for part in chunk.splitlines(keepends=True):
            self._line += part.rstrip(b"\r\n")
            if self._data_bytes + len(self._line) > self._bytes_max:
                raise UpstreamFailed(f"an event of more than {self._bytes_max} bytes was sent")
            if part.endswith((b"\r", b"\n")):
                line, self._line = bytes(self._line), bytearray()
                if (event := self._take(line)) is not None:
                    events.append(event)
        return events

    def _take(self, line: bytes) -> ServerEvent | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            return self._complete()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data.append(value)
                self._data_bytes += len(value) + 1
            case b"event":
                self._event = value.decode(errors="replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode(errors="replace")
        return None

    def _complete(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._data_bytes, self._event = [], 0, ""
        return ServerEvent(b"\n".join(data), self._id, event or "message") if data else None


def read_events(chunks: Iterable[bytes], bytes_max: int = EVENT_BYTES_MAX) -> Iterator[ServerEvent]:
    """Yield events as they come; UpstreamFailed when one is too long."""
    reader = EventReader(bytes_max)
    for chunk in chunks:
        yield from reader.feed(chunk)
