"""A caller who is shown a kept answer: from its first byte, or from where the connection was lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from muster.domain.service import Dialect
from muster.domain.stream import StreamEnd
from muster.errors import MusterError
from muster.gateway.dialects.shape import error_frame, error_reply
from muster.gateway.figures.usage import CLIENT_GONE, Finished
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.request import Request
from muster.gateway.relay import Relay, Running
from muster.gateway.resuming.recording import Reader
from muster.gateway.resuming.terms import Head

_log = structlog.get_logger()


class Client(Protocol):
    """The caller's connection, as far as a reading needs it."""

    transport: asyncio.Transport
    exchange: Running | None

    def answered(self, *, keep_alive: bool) -> None: ...


class Source(Protocol):
    """Where an answer is read."""

    @property
    def head(self) -> Head | None: ...
    @property
    def lines(self) -> bytes: ...
    @property
    def dialect(self) -> Dialect: ...
    @property
    def is_kept(self) -> bool: ...
    def length_from(self, offset: int) -> int | None: ...
    async def read(self, offset: int) -> tuple[bytes, StreamEnd | None]: ...
    def join(self, reader: Reader) -> None: ...
    def leave(self, reader: Reader, now_s: float) -> None: ...
    def advanced(self) -> None: ...


class Reading:
    """`find` finds where it is read, if that is not known by `read`.

    `path` is the one it is counted under; without one it is a part of a request that is counted already.
    """

    def __init__(
        self,
        relay: Relay,
        request: Request,
        client: Client,
        find: Callable[[], Awaitable[Source]] | None = None,
        *,
        offset: int = 0,
        path: str = "",
        dialect: Dialect = Dialect.OPENAI,
    ) -> None:
        self.offset = offset
        self.client = client
        self._relay = relay
        self._request = request
        self._find = find
        self._path = path
        self._dialect = dialect
        self._delivery = Delivery(client.transport, http_1_0=request.http_1_0, keep_alive=request.keep_alive)
        self._source: Source | None = None
        self._started_s = relay.clock.monotonic_s()
        self._paused_s: float | None = None
        self._readable = asyncio.Event()
        self._readable.set()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @property
    def using(self) -> tuple[str, str]:
        return "", ""  # the slot is that of whoever answers

    def start(self) -> None:
        self.client.exchange = self
        self._relay.active.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="stream reading")

    def read(self, source: Source) -> None:
        """Read there, from the beginning of an answer that is about to be asked for."""
        self._source = source
        source.join(self)

    async def _run(self) -> None:
        try:
            if self._find is not None:
                self.read(await self._find())
            source = self._source
            while source is not None and not self._over:
                data, end = await source.read(self.offset)
                await self._readable.wait()
                self._show(source, data, end)
        except MusterError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - a fault of ours must end this connection, not leave its caller waiting
            _log.exception("gateway_reading_failed")
            self.client.transport.abort()

    def _show(self, source: Source, data: bytes, end: StreamEnd | None) -> None:
        delivery, head = self._delivery, source.head
        if head is not None and not delivery.began:
            self._dialect = source.dialect
            length = source.length_from(self.offset)
            lines = head.lines + source.lines
            delivery.prepare(head.status, lines, length=length, streamed=head.streamed, by_line=False)
        if end is StreamEnd.WHOLE:
            delivery.end(data)
        elif data:
            delivery.send(data)
        self.offset += len(data)
        if end is None:
            source.advanced()
            return
        if end is not StreamEnd.WHOLE:
            delivery.break_off(b"")
        self._close(delivery.status)

    def fail(self, error: MusterError) -> None:
        """Say it, but never within an answer that is kept: its bytes are counted by whoever comes back."""
        if self._over:
            return
        delivery = self._delivery
        if delivery.began and self._source is not None and self._source.is_kept:
            self.cut()
            return
        if delivery.began:
            delivery.break_off(error_frame(self._dialect, error))
        else:
            reply = error_reply(self._dialect, error)
            lines = reply.all_lines + b"x-correlation-id: %b\r\n" % self._request.correlation_id
            delivery.prepare(reply.status, lines, length=len(reply.body), streamed=False, by_line=False)
            delivery.end(reply.body)
        self._close(error.http_status, error.code)

    def cut(self) -> None:
        """End the connection where it stands: the caller comes back to somebody else for the rest."""
        if not self._over:
            self.client.transport.abort()
            self.client_gone()

    def client_gone(self) -> None:
        if not self._over:
            self._delivery.keep_alive = False
            self._close(CLIENT_GONE)

    def pause(self) -> None:
        self._paused_s = self._relay.clock.monotonic_s()
        self._readable.clear()

    def resume(self) -> None:
        self._paused_s = None
        self._readable.set()

    def check(self, now_s: float) -> None:
        """Give up on a caller who does not read; what comes after is kept for it all the same."""
        if self._paused_s is not None and now_s - self._paused_s > self._relay.limits.idle_timeout_s:
            self.cut()

    def _close(self, status: int, error: str | None = None) -> None:
        self._over = True
        relay = self._relay
        now_s = relay.clock.monotonic_s()
        relay.active.discard(self)
        self.client.exchange = None
        if self._source is not None:
            self._source.leave(self, now_s)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._path:
            relay.record(
                Finished(
                    self._path,
                    status,
                    duration_s=now_s - self._started_s,
                    bytes_sent=self._delivery.bytes_sent,
                    error=error,
                    correlation_id=self._request.correlation_id,
                )
            )
        if status != CLIENT_GONE:
            self.client.answered(keep_alive=self._delivery.keep_alive)
