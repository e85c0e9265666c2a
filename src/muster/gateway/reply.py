"""Answers as bytes: status lines, heads and whole replies."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct

JSON = b"application/json"
NDJSON = b"application/x-ndjson"

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_encode = msgspec.json.Encoder().encode


class Reply(Struct, kw_only=True):
    """A whole answer that the gateway gives itself."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def json(cls, content: object, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> "Reply":
        return cls(status=status, body=_encode(content), headers=headers)

    def render(self, correlation_id: bytes, *, keep_alive: bool, with_body: bool = True) -> bytes:
        head = render_head(
            self.status,
            [(b"content-type", self.content_type), *self.headers, (b"x-correlation-id", correlation_id)],
            length=len(self.body),
            keep_alive=keep_alive,
        )
        return head + self.body if with_body else head


def render_head(
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    length: int | None = None,
    chunked: bool = False,
    keep_alive: bool = True,
) -> bytes:
    """Without length and chunks the body ends with the connection."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    lines += [b"%b: %b\r\n" % header for header in headers]
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    elif chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)
