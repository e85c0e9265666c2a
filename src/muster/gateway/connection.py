"""A caller's connection: one request after another, the gateway's answered here, all others given to the guest.

This protocol keeps the transport; the guest (uvicorn) gets the raw bytes of its requests and writes its answers by
itself. Only a WebSocket takes the transport over for good.
"""

import asyncio
import math
from typing import cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muster.errors import InvalidInput, MusterError, QueueFull
from muster.gateway.gateway import Gateway, Path
from muster.gateway.guest import Guests
from muster.gateway.http.framing import MalformedRequest, RequestReader
from muster.gateway.http.inflow import Inflow
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import Request, bearer_token
from muster.gateway.relay import Running

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = structlog.get_logger()


class TooManyConnections(QueueFull):
    code = "too_many_connections"
    http_status = 503


class RequestTimeout(InvalidInput):
    code = "request_timeout"
    http_status = 408
    retriable = True


class Connection(asyncio.Protocol):
    __slots__ = (
        "_activity",
        "_advancing",
        "_answering",
        "_connections",
        "_gateway",
        "_guest",
        "_guests",
        "_in_request",
        "_inflow",
        "_path",
        "_quiet_since_s",
        "_reader",
        "_reading_paused",
        "_refused",
        "_seen",
        "_stopping",
        "_token",
        "_write_paused",
        "exchange",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway, guests: Guests, connections: "set[Connection]") -> None:
        self._gateway = gateway
        self._guests = guests
        self._connections = connections
        self._reader = RequestReader(gateway.limits.head_bytes_max)
        self._path: Path | None = None  # of the request being read or answered; None: the guest's
        self._guest: HttpToolsProtocol | None = None
        self.exchange: Running | None = None
        self._inflow: Inflow | None = None  # takes the body being read, of a request that is served before its end
        self._token: bytes | None = None  # that was shown with the request
        self._in_request = False  # a head has been read, its body not to the end
        self._answering = False
        self._advancing = False
        self._refused = False  # told to go; what it still sends is read and dropped
        self._stopping = False
        self._write_paused = False
        self._reading_paused = False
        self._activity = self._seen = 0
        self._quiet_since_s = gateway.clock.monotonic_s()

    # --- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        if len(self._connections) > self._gateway.limits.connections_max:
            self._refuse(
                TooManyConnections("as many connections as allowed are open (setting connections_max): try again")
            )

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        reader = self._reader
        if self._in_request or not reader.buffer:  # the pieces of a slow head are no activity
            self._activity += 1
        reader.push(data)
        if self._in_request or not self._answering:
            self._advance()
        elif reader.pending > self._gateway.limits.pipelined_bytes_max and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """Whoever closes its side has left: waiting for the rest to fail would keep an engine at work for nobody."""
        if self.exchange is not None:
            self.exchange.client_gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self.exchange is not None:
            self.exchange.client_gone()
        if self._guest is not None:
            self._guest.connection_lost(exc)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.exchange is not None:
            self.exchange.pause()
        elif self._guest is not None:
            self._guest.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._guest is not None:
            self._guest.resume_writing()
        if self.exchange is not None:
            self.exchange.resume()
        elif not self._answering:
            self._advance()

    # --- one request after another -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Go on as far as what has come allows; an answer given meanwhile must not start this a second time."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except MalformedRequest as problem:
            self._refuse(problem)
        except Exception:  # noqa: BLE001 - a fault of ours must end this connection, not leave its caller waiting
            _log.exception("gateway_connection_failed")
            self.transport.abort()
        finally:
            self._advancing = False
        if self._reading_paused and not self._answering:
            self._read_on()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    def _step(self) -> bool:
        """Begin the next request or read on in this one; return whether there may be more to do."""
        if not self._in_request and not self._begin():
            return False
        reader = self._reader
        raw = reader.read_body()
        path = self._path
        if path is None:
            if raw and self._guest is not None:
                self._guest.data_received(raw)
        elif self._inflow is not None:
            self._inflow.put(reader.take_body(), last=reader.complete)
        elif reader.body_bytes > self._gateway.limits.body_bytes_max:
            self._turn_away(path, self._gateway.too_large(reader.body_bytes))
            return False
        if not reader.complete:
            return False
        self._in_request = False
        if self._inflow is not None:
            self._inflow = None
        elif path is not None:
            self._serve(path)
        return bool(reader.buffer)

    def _begin(self) -> bool:
        """Read a head and decide whose request it is; return whether its body is to be read."""
        reader = self._reader
        if self._answering or self._write_paused or not reader.buffer or self.transport.is_closing():
            return False
        head = reader.read_head()
        if head is None:
            return False
        self._in_request = True
        self._path = self._gateway.find(reader.url)
        if self._path is None:
            return self._give_to_guest(head)
        return self._welcome(self._path)

    def _welcome(self, path: Path) -> bool:
        """Judge a request by its head; one that waits for leave to send its body gets it."""
        reader = self._reader
        self._token = bearer_token(reader.headers)
        problem = self._gateway.refusal(path, reader, self._token)
        if problem is not None:
            self._turn_away(path, problem)
            return False
        if not reader.complete and not reader.buffer and reader.headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(_CONTINUE)
        if path.in_pieces and reader.method == b"POST":
            self._inflow = Inflow(self.transport)
            self._serve(path)
        return not self._refused

    def _serve(self, path: Path) -> None:
        self._answering = True
        reader = self._reader
        correlation_id = self._gateway.correlation_id(reader.headers)
        request = Request(
            method=reader.method,
            url=reader.url,
            headers=reader.headers,
            body=reader.take_body(),
            http_1_0=reader.http_1_0,
            keep_alive=reader.keep_alive and not self._stopping,
            correlation_id=correlation_id,
            token=self._token,
        )
        reply = self._gateway.serve(path, request, self, self._inflow)
        if reply is not None:
            with_body = request.method != b"HEAD"
            self.transport.write(reply.render(correlation_id, keep_alive=request.keep_alive, with_body=with_body))
            self.answered(keep_alive=request.keep_alive)

    def answered(self, *, keep_alive: bool) -> None:
        """Go on with the next request; called when an answer has been written to its end."""
        if self._inflow is not None and self._in_request:
            self._end_early()
            return
        self._answering = False
        self._activity += 1
        if self._stopping or not keep_alive:
            self.transport.close()
        elif self._reader.buffer:
            self._advance()
        elif self._reading_paused:
            self._read_on()

    def _end_early(self) -> None:
        """Close after an answer that did not wait for the body; what is still sent is read and dropped."""
        self._refused = True
        self._inflow = None
        self._reader.take_rest()
        self._hang_up()

    # --- the guest ---------------------------------------------------------------------------------------------------

    def _give_to_guest(self, head: bytes) -> bool:
        self._answering = True
        self._reader.keep_body = False
        if self._guest is None:
            self._guest = self._guests.new(self)
            self._guest.connection_made(self.transport)
        self._guest.data_received(head)
        successor = self.transport.get_protocol()
        if successor is self or self.transport.is_closing():
            return True
        self._connections.discard(self)  # a WebSocket: this connection is no longer ours
        rest = self._reader.take_rest()
        if rest:
            cast("asyncio.Protocol", successor).data_received(rest)
        return False

    def guest_answered(self) -> None:
        """Go on with the next request; called from within the guest's last write."""
        self._answering = False
        self._activity += 1
        if self._guest is not None and not self.transport.is_closing():
            self._guest.data_received(b"")  # ends its keep-alive timer, which would fire into our answers
        if self._stopping:
            self.transport.close()
        else:
            self._advance()

    def write_now(self, data: bytes) -> bool:
        """Write amid the guest's answer, unless its caller reads slowly: then the guest has to wait with it."""
        if self._write_paused or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    # --- ending ------------------------------------------------------------------------------------------------------

    def _turn_away(self, path: Path, problem: MusterError) -> None:
        """Answer a request without reading its body."""
        correlation_id = self._gateway.correlation_id(self._reader.headers)
        reply = self._gateway.refuse(path, problem, correlation_id, self._reader.headers)
        self._say_goodbye(reply, correlation_id, with_body=self._reader.method != b"HEAD")

    def _refuse(self, problem: MusterError) -> None:
        """Answer what is no request, so in nobody's dialect."""
        reply = Reply.json(problem.to_dict(), status=problem.http_status)
        self._say_goodbye(reply, self._gateway.correlation_id(self._reader.headers))

    def _say_goodbye(self, reply: Reply, correlation_id: bytes, *, with_body: bool = True) -> None:
        """Close, but give the caller, who may still be sending, time to read the answer (RFC 9112, 9.6)."""
        self._refused = True
        self._activity += 1
        self._reader.take_rest()
        if self.transport.is_closing():
            return
        self.transport.write(reply.render(correlation_id, keep_alive=False, with_body=with_body))
        self._hang_up()

    def _hang_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS: it says so, and waits for the caller to do the same

    def check(self, now_s: float) -> None:
        """Close what has been silent for too long where a word was due."""
        if self._activity != self._seen or (self._inflow is not None and self._inflow.waits):
            self._seen = self._activity
            self._quiet_since_s = now_s
        elif now_s - self._quiet_since_s <= self._patience_s:
            return
        elif (
            self._refused
            or self.transport.is_closing()
            or (self._in_request and (self._path is None or self._inflow is not None))
        ):
            self.transport.abort()  # an answer may have begun: nothing can be said any more
        elif self._in_request or self._reader.buffer:
            self._refuse(RequestTimeout("the rest of the request did not come in time"))
        else:
            self.transport.close()

    @property
    def _patience_s(self) -> float:
        limits = self._gateway.limits
        if self._refused or self.transport.is_closing():
            return limits.linger_s
        if self._in_request:
            return limits.body_idle_timeout_s
        if self._answering:
            return math.inf  # an exchange has its own deadlines, the guest its own reasons
        return limits.head_timeout_s if self._reader.buffer else limits.keepalive_idle_s

    def shut_down(self) -> None:
        """Close now, or after the answer being given."""
        self._stopping = True
        if self._path is None and self._answering and self._guest is not None:
            self._guest.shutdown()
        elif not self._answering and not self._in_request:
            self.transport.close()
