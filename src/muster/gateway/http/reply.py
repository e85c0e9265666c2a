"""Answers as bytes: status lines, header lines, heads and whole replies."""

from http import HTTPStatus

import msgspec
from msgspec import Struct

JSON = b"application/json"
NDJSON = b"application/x-ndjson"

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_encode = msgspec.json.Encoder().encode


class Reply(Struct, kw_only=True):
    """A whole answer that the gateway gives itself; `lines` are further header lines."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    lines: bytes = b""

    @classmethod
    def json(cls, content: object, *, status: int = 200, lines: bytes = b"") -> "Reply":
        return cls(status=status, body=_encode(content), lines=lines)

    @property
    def all_lines(self) -> bytes:
        return b"content-type: %b\r\n%b" % (self.content_type, self.lines)

    def render(self, correlation_id: bytes, *, keep_alive: bool, with_body: bool = True) -> bytes:
        lines = b"%bx-correlation-id: %b\r\n" % (self.all_lines, correlation_id)
        head = render_head(self.status, lines, length=len(self.body), chunked=False, keep_alive=keep_alive)
        return head + self.body if with_body else head


def render_head(status: int, lines: bytes, *, length: int | None, chunked: bool, keep_alive: bool) -> bytes:
    """Without length and chunks the body ends with the connection."""
    return b"%b%b%b%b" % (
        _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
        lines,
        b"content-length: %d\r\n" % length
        if length is not None
        else b"transfer-encoding: chunked\r\n"
        if chunked
        else b"",
        b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
    )
