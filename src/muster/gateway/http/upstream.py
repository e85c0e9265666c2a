"""Connections to engines: kept alive between requests, one pool for each address."""

import asyncio
import ssl
from functools import lru_cache
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from muster.errors import UpstreamFailed
from muster.gateway.limits import GatewayLimits

_FIRST_FINAL_STATUS = 200
# The framing to the caller is ours, and what concerns one connection ends with it.
_NOT_PASSED_ON = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Fields:
    """The header fields of an answer, but for its length; `lines` are those for the caller.

    `by_line`: it is a stream whose lines can be told apart.
    """

    __slots__ = ("by_line", "chunked", "content_type", "lines", "retry_after", "streamed")

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        named = dict(fields)
        self.chunked = b"transfer-encoding" in named
        self.content_type = named.get(b"content-type", b"")
        self.streamed = self.content_type.startswith(_STREAMS)
        self.by_line = self.streamed and b"content-encoding" not in named
        self.retry_after = b"retry-after" in named
        self.lines = b"".join([b"%b: %b\r\n" % field for field in fields if field[0] not in _NOT_PASSED_ON])


_fields = lru_cache(maxsize=256)(Fields)  # an engine says the same before every answer


class AnswerHead:
    """What an engine says before its answer."""

    __slots__ = ("fields", "length", "status")

    def __init__(self, status: int, length: int | None, fields: Fields) -> None:
        self.status = status
        self.length = length
        self.fields = fields

    @property
    def ends_with_connection(self) -> bool:
        return self.length is None and not self.fields.chunked


class Asker(Protocol):
    """Who waits for an engine's answer. In `answer_began` it may drop the connection; then it hears nothing more."""

    def answer_began(self, head: AnswerHead) -> None: ...
    def answer_continued(self, data: bytes) -> None: ...
    def answer_ended(self, data: bytes) -> None: ...
    def answer_lost(self, reason: str) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One request at a time; the answer is de-framed, so that what a caller gets is always framed by us."""

    __slots__ = (
        "_announced",
        "_asker",
        "_fields",
        "_head",
        "_head_bytes",
        "_keep",
        "_length",
        "_parser",
        "_parts",
        "_whole",
        "_writable",
        "endpoint",
        "idle_since_s",
        "on_body",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, endpoint: "Endpoint") -> None:
        self.endpoint = endpoint
        self.used = False  # has carried an answer before, so it may have died since
        self.idle_since_s: float | None = None
        self._asker: Asker | None = None
        self._writable: asyncio.Event | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by llhttp; a method of ours would cost every event a call more
        self._parser = httptools.HttpResponseParser(self)
        self._clear()

    def _clear(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._head: AnswerHead | None = None
        self._head_bytes = 0  # until it is announced
        self._announced = False
        self._whole: int | None = None  # when it has ended: in how many parts
        self._keep = False

    def ask(self, asker: Asker, request: bytes) -> None:
        self.await_answer(asker)
        self.transport.write(request)

    def await_answer(self, asker: Asker) -> None:
        """Take the answer for this one, to a request that is sent later by `send`."""
        self._clear()
        self._asker = asker

    def send(self, request: bytes) -> None:
        """Send it, unless the connection has been lost or dropped meanwhile: its asker has heard of that, or left."""
        if not self.transport.is_closing():
            self.transport.write(request)

    def drop(self) -> None:
        """Let go at once: the engine shall not work on what nobody waits for."""
        self._asker = None
        self.transport.abort()

    def watch_writing(self, writable: asyncio.Event) -> None:
        """Have this event set while the engine takes what it is sent, for a body that is sent in pieces."""
        writable.set()
        self._writable = writable

    def pause_writing(self) -> None:
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()

    def pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.endpoint.open.add(self)

    def data_received(self, data: bytes) -> None:
        asker = self._asker
        if asker is None:  # an engine that speaks unasked is out of step
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose("sent a malformed answer")
            return
        if not self._announced:
            if self._head is None:
                self._head_bytes += len(data)
                if self._head_bytes > self.endpoint.limits.head_bytes_max:
                    self._lose("sent too long a head")
                return
            self._announced = True
            asker.answer_began(self._head)
            if self._asker is not asker:
                return
        parts = self._parts
        if self._whole is not None:
            del parts[self._whole :]  # of an answer that nobody asked for
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._asker = None
            if self._keep:
                self.endpoint.give_back(self)
            else:
                self.transport.abort()
            asker.answer_ended(data)
        elif parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            asker.answer_continued(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.forget(self)
        self.resume_writing()
        asker = self._asker
        if asker is None:
            return
        if exc is None and self._head is not None and self._head.ends_with_connection:
            self._asker = None
            asker.answer_ended(b"")
        else:
            self._lose("closed the connection" if exc is None else f"broke the connection: {exc}")

    def _lose(self, reason: str) -> None:
        asker, self._asker = self._asker, None
        self.transport.abort()
        if asker is not None:
            asker.answer_lost(reason)

    # --- called by llhttp --------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        else:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._whole is not None:  # an answer that nobody asked for follows
            self._keep = False
            return
        status = self._parser.get_status_code()
        if status >= _FIRST_FINAL_STATUS:  # before it may come 100 Continue or 103 Early Hints
            self._head = AnswerHead(status, self._length, _fields(tuple(self._fields)))
        self._fields = []  # trailers are not passed on

    def on_message_complete(self) -> None:
        if self._head is not None and self._whole is None:
            self._whole = len(self._parts)
            self._keep = self._parser.should_keep_alive()  # llhttp knows it only within this callback


class Endpoint:
    """An engine's address and the connections to it."""

    __slots__ = ("_idle", "host", "host_header", "limits", "open", "path", "port", "retired", "ssl")

    def __init__(self, url: str, limits: GatewayLimits) -> None:
        parts = urlsplit(url)
        self.limits = limits
        self.host = parts.hostname or ""
        self.port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
        self.ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self.path = parts.path.rstrip("/").encode()
        self.host_header = parts.netloc.rpartition("@")[2].encode()
        self.open: set[UpstreamConnection] = set()
        self.retired = False  # forgotten, though a connection may just be being made: nobody would ever close it
        self._idle: list[UpstreamConnection] = []  # the latest used is taken first, so that the rest can go

    def take(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """Raise OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.limits.connect_timeout_s):
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), self.host, self.port, ssl=self.ssl
            )
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        if not self.retired and len(self._idle) < self.limits.upstream_idle_max:
            connection.used = True
            connection.idle_since_s = None
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def forget(self, connection: UpstreamConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for too long, counted from the first look at it."""
        kept = []
        for connection in self._idle:
            if connection.idle_since_s is None:
                connection.idle_since_s = now_s
            if now_s - connection.idle_since_s > self.limits.upstream_idle_s:
                connection.transport.close()
            else:
                kept.append(connection)
        self._idle = kept


class Upstreams:
    """All endpoints; one that has no connection left is forgotten, as services come and go with their ports."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._endpoints: dict[str, Endpoint] = {}

    def endpoint(self, url: str) -> Endpoint:
        """Raise UpstreamFailed when the URL makes no sense."""
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            try:
                endpoint = self._endpoints[url] = Endpoint(url, self._limits)
            except ValueError as error:
                raise UpstreamFailed(f"{url!r} is no address that can be asked: {error}") from error
        return endpoint

    @property
    def connections(self) -> int:
        return sum(len(endpoint.open) for endpoint in self._endpoints.values())

    def sweep(self, now_s: float) -> None:
        for url, endpoint in list(self._endpoints.items()):
            endpoint.sweep(now_s)
            if not endpoint.open:
                endpoint.retired = True
                del self._endpoints[url]

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            for connection in list(endpoint.open):
                connection.drop()
