"""Cuts a client's bytes into requests; llhttp alone judges what they mean.

A request ends either `Content-Length` bytes behind its head or just behind an empty line (a head without a body, the
last chunk with its trailers). The parser is fed in slices that end at these places, so the boundary between two
requests is known exactly, and the raw bytes of any request can be given to another protocol unchanged.
"""

import re

import httptools

from muster.errors import InvalidInput

_HEAD_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*", re.IGNORECASE)


class MalformedRequest(InvalidInput):
    """The bytes are no request that we would take; the connection is out of step and must be closed."""

    code = "malformed_request"


class HeadTooLarge(MalformedRequest):
    code = "head_too_large"
    http_status = 431


class RequestReader:
    """Read one request after another: push(), read_head(), read_body() until `complete`, and again."""

    __slots__ = (
        "_at",
        "_fields",
        "_head_bytes_max",
        "_parser",
        "_problem",
        "_searched",
        "_tail",
        "body_bytes",
        "body_parts",
        "buffer",
        "chunked",
        "complete",
        "head_done",
        "headers",
        "http_1_0",
        "keep_alive",
        "keep_body",
        "method",
        "remaining",
        "url",
    )

    def __init__(self, head_bytes_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self.buffer = b""  # empty when all has been read
        self._at = 0  # what lies before it has been read
        self._searched = 0
        self.url = b""
        self.method = b""
        self.headers: dict[bytes, bytes] = {}  # names in lower case; of a repeated one the last
        self.http_1_0 = False
        self.keep_alive = True
        self._clear()

    def _clear(self) -> None:
        self._fields: dict[bytes, bytes] = {}
        self._tail = b""
        self._problem: MalformedRequest | None = None  # found within a callback, where raising would lose its text
        self.chunked = False
        self.remaining = 0  # what is still to come of a body of known length
        self.head_done = False
        self.complete = False
        self.keep_body = True
        self.body_parts: list[bytes] = []
        self.body_bytes = 0

    @property
    def pending(self) -> int:
        """How many bytes have come and not been read."""
        return len(self.buffer) - self._at

    def push(self, data: bytes) -> None:
        if self.buffer:
            self._searched = max(0, self._searched - self._at)
            data = self.buffer[self._at :] + data
            self._at = 0
        self.buffer = data

    def take_rest(self) -> bytes:
        rest = self.buffer[self._at :]
        self._consume(len(self.buffer))
        return rest

    def _consume(self, end: int) -> None:
        if end == len(self.buffer):
            self.buffer = b""
            self._at = self._searched = 0
        else:
            self._at = end

    def take_body(self) -> bytes:
        parts, self.body_parts = self.body_parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_head(self) -> bytes | None:
        """Parse the next head once it is complete and return its raw bytes."""
        buffer, start = self.buffer, self._at
        while buffer.startswith((b"\r", b"\n"), start):  # empty lines before a request are ignored (RFC 9112, 2.2)
            start += 1
        found = buffer.find(_HEAD_END, max(start, self._searched))
        end = len(buffer) if found < 0 else found + 4
        if end - start > self._head_bytes_max:
            raise HeadTooLarge(f"the head of a request may have {self._head_bytes_max} bytes")
        if found < 0:
            self._consume(start)
            self._searched = max(start, end - 3)
            return None
        head = buffer[start:end]
        if end == len(buffer):
            self.buffer = b""
            self._at = self._searched = 0
        else:
            self._at = end
        self._clear()
        if self._feed(head):
            head = self._ignore_upgrade(head)
        if not self.head_done:
            raise MalformedRequest("this is not an HTTP/1.1 request")
        return head

    def _ignore_upgrade(self, head: bytes) -> bytes:
        """Drop the wish for any other protocol than WebSocket, as servers may (RFC 9110, 7.8).

        llhttp takes what follows such a head for the other protocol, even a body of known length.
        """
        headers = self.headers
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if headers.get(b"upgrade", b"").lower() == b"websocket" and not has_body:
            return head
        head = _UPGRADE.sub(b"", head)
        self._clear()
        if self._feed(head):
            raise MalformedRequest("CONNECT is not spoken here")
        return head

    def read_body(self) -> bytes:
        """Take what has come of this request's body; returns the raw bytes, framing included."""
        buffer, start = self.buffer, self._at
        if self.complete or not buffer:
            return b""
        if self.chunked:
            return self._read_chunks()
        end = start + self.remaining
        if end < len(buffer):
            part = buffer[start:end]
            self._at = end
        else:
            part = buffer[start:]
            self.buffer = b""
            self._at = self._searched = 0
        self.remaining -= len(part)
        self._feed(part)
        return part

    def _read_chunks(self) -> bytes:
        """Feed up to each empty line: the message can end nowhere else."""
        window = self._tail + self.buffer[self._at :]  # an empty line may lie across two reads
        start = position = len(self._tail)
        while not self.complete and position < len(window):
            found = window.find(_HEAD_END, max(0, position - 3))
            end = len(window) if found < 0 else found + 4
            self._feed(window[position:end])
            position = end
        self._tail = window[max(0, position - 3) : position]
        self._consume(self._at + position - start)
        return window[start:position]

    def _feed(self, data: bytes) -> bool:
        """Return whether another protocol is to follow."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)  # the old one waits for the other protocol
            return True
        except httptools.HttpParserError as error:
            raise self._problem or MalformedRequest(f"malformed request: {error}") from error
        if self._problem is not None:
            raise self._problem
        return False

    # --- called by llhttp --------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.url = url  # whole, as a head is fed in one piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self.headers = self._fields
        self._fields = {}  # trailers go here, and nowhere else: nothing that the head has decided may change
        self.method = parser.get_method()
        self.keep_alive = parser.should_keep_alive()
        self.http_1_0 = False
        self.head_done = True
        if b"content-length" in headers:
            self.remaining = int(headers[b"content-length"])
        elif b"transfer-encoding" in headers:
            self.chunked = True
            if headers[b"transfer-encoding"].lower() != b"chunked":
                self._problem = MalformedRequest("the only Transfer-Encoding understood is chunked")
        version = parser.get_http_version()
        if version != "1.1":
            self.http_1_0 = True
            self.keep_alive = False
            if version != "1.0":
                self._problem = MalformedRequest(f"HTTP/{version} is not spoken here")
            elif self.chunked:  # a proxy before us may have framed it otherwise (RFC 9112, 6.1)
                self._problem = MalformedRequest("HTTP/1.0 has no Transfer-Encoding")

    def on_body(self, body: bytes) -> None:
        if self.keep_body:
            self.body_parts.append(body)
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        self.complete = True


def path_of(url: bytes) -> bytes:
    """Return the path without query; proxies send the absolute form (RFC 9112, 3.2.2)."""
    if not url.startswith(b"/"):
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return url
    return url.partition(b"?")[0]
