"""Cuts a client's bytes into requests; llhttp alone judges what they mean.

A request ends either `Content-Length` bytes behind its head or just behind an empty line (a head without a body, the
last chunk with its trailers). The parser is fed in slices that end at these places, so the boundary between two
requests is known exactly, and the raw bytes of any request can be given to another protocol unchanged.
"""

from urllib.parse import unquote

import httptools

from muster.errors import InvalidInput

_HEAD_END = b"\r\n\r\n"


class MalformedRequest(InvalidInput):
    """The bytes are no request that we would take; the connection is out of step and must be closed."""

    code = "malformed_request"


class HeadTooLarge(MalformedRequest):
    code = "head_too_large"
    http_status = 431


class RequestReader:
    """Read one request after another: push(), read_head(), read_body() until `complete`, and again."""

    __slots__ = (
        "_buffer",
        "_head_bytes_max",
        "_parser",
        "_problem",
        "_remaining",
        "_searched",
        "_tail",
        "body_bytes",
        "body_parts",
        "chunked",
        "complete",
        "head_done",
        "headers",
        "http_1_0",
        "keep_alive",
        "keep_body",
        "method",
        "url",
    )

    def __init__(self, head_bytes_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._buffer = b""
        self._clear()

    def _clear(self) -> None:
        self._searched = 0
        self._remaining = 0
        self._tail = b""
        self._problem: MalformedRequest | None = None  # found within a callback, where raising would lose its text
        self.url = b""
        self.method = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.http_1_0 = False
        self.keep_alive = True
        self.chunked = False
        self.keep_body = True
        self.head_done = False
        self.complete = False
        self.body_parts: list[bytes] = []
        self.body_bytes = 0

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def content_length(self) -> int:
        """What is still to come of a body of known length."""
        return self._remaining

    @property
    def path(self) -> bytes:
        """The path without query, as it stands in the request line."""
        url = self.url if self.url.startswith(b"/") else _path_of_absolute(self.url)
        return url.partition(b"?")[0]

    def take_body(self) -> bytes:
        parts, self.body_parts = self.body_parts, []
        return b"".join(parts)

    def push(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    def take_rest(self) -> bytes:
        rest, self._buffer = self._buffer, b""
        return rest

    def read_head(self) -> bytes | None:
        """Parse the next head once it is complete and return its raw bytes."""
        buffer = self._buffer
        if buffer[:1] in {b"\r", b"\n"}:  # a robust server ignores empty lines before a request (RFC 9112, 2.2)
            buffer = self._buffer = buffer.lstrip(b"\r\n")
            self._searched = 0
        found = buffer.find(_HEAD_END, self._searched)
        end = len(buffer) if found < 0 else found + 4
        if end > self._head_bytes_max:
            raise HeadTooLarge(f"the head of a request may have {self._head_bytes_max} bytes")
        if found < 0:
            self._searched = max(0, end - 3)
            return None
        head, rest = buffer[:end], buffer[end:]
        self._clear()
        self._buffer = rest
        self._feed(head)
        if not self.head_done:
            raise MalformedRequest("this is not an HTTP/1.1 request")
        return head

    def read_body(self) -> bytes:
        """Take what has come of this request's body; returns the raw bytes, framing included."""
        buffer = self._buffer
        if self.complete or not buffer:
            return b""
        if self.chunked:
            return self._read_chunks()
        part = buffer if len(buffer) <= self._remaining else buffer[: self._remaining]
        self._buffer = buffer[len(part) :]
        self._remaining -= len(part)
        self._feed(part)
        return part

    def _read_chunks(self) -> bytes:
        """Feed up to each empty line: the message can end nowhere else."""
        window = self._tail + self._buffer  # an empty line may lie across two reads
        start = position = len(self._tail)
        while not self.complete and position < len(window):
            found = window.find(_HEAD_END, max(0, position - 3))
            end = len(window) if found < 0 else found + 4
            self._feed(window[position:end])
            position = end
        self._tail = window[max(0, position - 3) : position]
        self._buffer = window[position:]
        return window[start:position]

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The parser now expects the other protocol; whether to speak it is for the one who answers to say.
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            raise self._problem or MalformedRequest(f"malformed request: {error}") from error
        if self._problem is not None:
            raise self._problem

    # --- called by llhttp --------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:  # a trailer; nothing that was decided by the head may change
            return
        name = name.lower()
        if name == b"content-length":
            self._remaining = int(value)
        elif name == b"transfer-encoding":
            self.chunked = True
            if value.lower() != b"chunked":
                self._problem = MalformedRequest("the only Transfer-Encoding understood is chunked")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            self._problem = MalformedRequest(f"HTTP/{version} is not spoken here")
        self.http_1_0 = version == "1.0"
        if self.http_1_0 and self.chunked:  # a proxy before us may have framed it otherwise (RFC 9112, 6.1)
            self._problem = MalformedRequest("HTTP/1.0 has no Transfer-Encoding")
        self.method = parser.get_method()
        self.keep_alive = parser.should_keep_alive() and not self.http_1_0
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.keep_body:
            self.body_parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


def _path_of_absolute(url: bytes) -> bytes:
    """Reduce the absolute form, which proxies use, to the path (RFC 9112, 3.2.2)."""
    try:
        return httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return url


def decoded(path: bytes) -> str:
    return unquote(path.decode("latin-1"), errors="replace")
