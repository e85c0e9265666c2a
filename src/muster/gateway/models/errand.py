"""A request that is no question to a model: work on one or several engines, done by a task, told line by line."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from muster.domain.service import Dialect
from muster.domain.usage import Use
from muster.errors import MusterError, NotFound
from muster.gateway.dialects.shape import error_frame, error_reply
from muster.gateway.figures.usage import CLIENT_GONE, Finished
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.inflow import Inflow
from muster.gateway.http.reply import NDJSON, Reply
from muster.gateway.http.request import Request
from muster.gateway.relay import Relay, Running

_OK = 200

_log = structlog.get_logger()


class Client(Protocol):
    """The caller's connection, as far as an errand needs it."""

    transport: asyncio.Transport
    exchange: Running | None

    def answered(self, *, keep_alive: bool) -> None: ...


class Errand:
    """`stream` says whether its caller hears of the way; who does not gets the end only."""

    def __init__(
        self,
        relay: Relay,
        path: str,
        request: Request,
        client: Client,
        *,
        body: Inflow | None = None,
        allows: Callable[[str], bool] = lambda _: True,
        dialect: Dialect = Dialect.OLLAMA,
        model: str = "",
    ) -> None:
        """Take `allows` for which models this caller may use: others are not there for it.

        `model` is the one that it is about, where it is about one; what that came to, its work says in `use`.
        """
        self._allows = allows
        self.request = request
        self.client = client
        self.body = body
        self.stream = False
        self.use: Use | None = None
        self._dialect = dialect
        self._model = model
        self._relay = relay
        self._path = path
        self._delivery = Delivery(client.transport, http_1_0=request.http_1_0, keep_alive=request.keep_alive)
        self._started_s = relay.clock.monotonic_s()
        self._readable = asyncio.Event()  # the caller takes what it is told
        self._readable.set()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @property
    def using(self) -> tuple[str, str]:
        return "", ""  # no slot of anybody

    def start(self, work: Callable[["Errand"], Awaitable[Reply]]) -> None:
        self.client.exchange = self
        self._relay.active.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run(work), name=f"errand {self._path}")

    async def _run(self, work: Callable[["Errand"], Awaitable[Reply]]) -> None:
        try:
            reply = await work(self)
            await self._readable.wait()
        except MusterError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - a fault of ours must end this connection, not leave its caller waiting
            _log.exception("gateway_errand_failed", path=self._path)
            self.client.transport.abort()
        else:
            self._finish(reply)

    def check_model(self, name: str) -> None:
        if not self._allows(name):
            raise NotFound(f"model '{name}' not found", field="model")

    async def tell(self, line: dict[str, object]) -> None:
        if self.stream and not self._over:
            await self._readable.wait()
            self._begin()
            self._delivery.send(msgspec.json.encode(line) + b"\n")

    def _begin(self) -> None:
        if not self._delivery.began:
            lines = b"content-type: %b\r\nx-correlation-id: %b\r\n" % (NDJSON, self.request.correlation_id)
            self._delivery.prepare(_OK, lines, length=None, streamed=True, by_line=False)

    def _finish(self, reply: Reply, error: str | None = None) -> None:
        """End with this answer; after other lines it is the last one, whatever its status."""
        if self._over:
            return
        delivery = self._delivery
        if self.stream and reply.status == _OK:
            self._begin()
        if delivery.began or (self.stream and reply.status == _OK):
            delivery.end(reply.body + b"\n")
        else:
            if self.body is not None and not self.body.complete:
                delivery.keep_alive = False
            lines = reply.all_lines + b"x-correlation-id: %b\r\n" % self.request.correlation_id
            body = b"" if self.request.method == b"HEAD" else reply.body
            delivery.prepare(reply.status, lines, length=len(body), streamed=False, by_line=False)
            delivery.end(body)
        self._close(reply.status, error)

    def _close(self, status: int, error: str | None = None) -> None:
        self._over = True
        relay = self._relay
        relay.active.discard(self)
        self.client.exchange = None
        duration_s = relay.clock.monotonic_s() - self._started_s
        relay.record(
            Finished(
                self._path,
                status,
                self._model,
                first_byte_s=duration_s if self.use is not None else None,  # it came whole
                duration_s=duration_s,
                bytes_sent=self._delivery.bytes_sent,
                error=error,
                correlation_id=self.request.correlation_id,
                use=self.use,
            )
        )
        if self.body is not None:
            self.body.let_go()
        if status != CLIENT_GONE:
            self.client.answered(keep_alive=self._delivery.keep_alive)

    # --- what the connection and the relay say -----------------------------------------------------------------------

    def pause(self) -> None:
        self._readable.clear()

    def resume(self) -> None:
        self._readable.set()

    def client_gone(self) -> None:
        """Let the engines go, too: what they have fetched so far they keep, and go on with the next time."""
        if not self._over:
            self._cancel()
            self._close(CLIENT_GONE)

    def check(self, now_s: float) -> None:
        """Do nothing: each question to an engine has a deadline of its own."""

    def fail(self, error: MusterError) -> None:
        if self._over:
            return
        self._cancel()
        if self._delivery.began:
            self._delivery.break_off(error_frame(self._dialect, error))
            self._close(error.http_status, error.code)
        else:
            self._finish(error_reply(self._dialect, error), error.code)

    def _cancel(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
