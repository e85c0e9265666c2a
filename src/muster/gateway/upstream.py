"""Connections to engines: kept alive between requests, one pool for each address."""

import asyncio
import ssl
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from muster.clock import Clock
from muster.errors import UpstreamFailed
from muster.gateway.limits import GatewayLimits

_FIRST_FINAL_STATUS = 200
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer", b"upgrade"}
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AnswerHead:
    """What an engine says before its answer. `headers` are those for the caller, without the framing."""

    __slots__ = ("chunked", "content_type", "encoded", "headers", "length", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.length: int | None = None
        self.chunked = False
        self.content_type = b""
        self.encoded = False

    @property
    def ends_with_connection(self) -> bool:
        return self.length is None and not self.chunked

    def add(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self.length = int(value)
        elif name == b"transfer-encoding":
            self.chunked = True
        elif name not in _HOP_BY_HOP:
            if name == b"content-type":
                self.content_type = value
            elif name == b"content-encoding":
                self.encoded = True
            self.headers.append((name, value))


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
        "_complete",
        "_head",
        "_head_bytes",
        "_head_done",
        "_keep",
        "_parser",
        "_parts",
        "_surplus",
        "endpoint",
        "idle_since_s",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, endpoint: "Endpoint") -> None:
        self.endpoint = endpoint
        self.used = False  # has carried an answer before, so it may have died since
        self.idle_since_s = 0.0
        self._asker: Asker | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._clear()

    def _clear(self) -> None:
        self._head = AnswerHead()
        self._head_bytes = 0
        self._head_done = False
        self._announced = False
        self._complete = False
        self._keep = False
        self._surplus = False
        self._parts: list[bytes] = []

    def ask(self, asker: Asker, request: bytes) -> None:
        self._clear()
        self._asker = asker
        self.transport.write(request)

    def drop(self) -> None:
        """Let go at once: the engine shall not work on what nobody waits for."""
        self._asker = None
        self.transport.abort()

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
            if not self._head_done:
                self._head_bytes += len(data)
                if self._head_bytes > self.endpoint.limits.head_bytes_max:
                    self._lose("sent too long a head")
                return
            self._announced = True
            asker.answer_began(self._head)
            if self._asker is not asker:
                return
        if self._complete:
            self._end(asker)
        elif self._parts:
            parts, self._parts = self._parts, []
            asker.answer_continued(parts[0] if len(parts) == 1 else b"".join(parts))

    def _end(self, asker: Asker) -> None:
        self._asker = None
        if self._keep and not self._surplus:
            self.used = True
            self.endpoint.keep(self)
        else:
            self.transport.abort()
        asker.answer_ended(b"".join(self._parts))

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.forget(self)
        asker = self._asker
        if asker is None:
            return
        if exc is None and self._announced and self._head.ends_with_connection:
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

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # trailers are not passed on
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        self._head.status = self._parser.get_status_code()
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._head.status < _FIRST_FINAL_STATUS:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._head = AnswerHead()
            self._head_done = False
            return
        self._complete = True
        self._keep = self._parser.should_keep_alive()  # llhttp knows it only within this callback


class Endpoint:
    """An engine's address and the connections to it."""

    __slots__ = ("_clock", "_idle", "host", "host_header", "limits", "open", "path", "port", "ssl")

    def __init__(self, url: str, limits: GatewayLimits, clock: Clock) -> None:
        parts = urlsplit(url)
        self.limits = limits
        self._clock = clock
        self.host = parts.hostname or ""
        self.port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
        self.ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self.path = parts.path.rstrip("/").encode()
        self.host_header = parts.netloc.rpartition("@")[2].encode()
        self.open: set[UpstreamConnection] = set()
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

    def keep(self, connection: UpstreamConnection) -> None:
        if len(self._idle) < self.limits.upstream_idle_max and not connection.transport.is_closing():
            connection.idle_since_s = self._clock.monotonic_s()
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def forget(self, connection: UpstreamConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now_s: float) -> None:
        oldest_s = now_s - self.limits.upstream_idle_s
        for connection in [c for c in self._idle if c.idle_since_s < oldest_s]:
            connection.transport.close()
        self._idle = [c for c in self._idle if c.idle_since_s >= oldest_s]


class Upstreams:
    """All endpoints; one that has no connection left is forgotten, as services come and go with their ports."""

    def __init__(self, limits: GatewayLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._endpoints: dict[str, Endpoint] = {}

    def endpoint(self, url: str) -> Endpoint:
        """Raise UpstreamFailed when the URL makes no sense."""
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            try:
                endpoint = self._endpoints[url] = Endpoint(url, self._limits, self._clock)
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
                del self._endpoints[url]

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            for connection in list(endpoint.open):
                connection.drop()
