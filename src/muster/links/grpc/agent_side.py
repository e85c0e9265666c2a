"""An agent's calls over one gRPC stream that is opened again for ever."""

import asyncio
from collections.abc import Callable
from itertools import count
from urllib.parse import urlsplit

import grpc
import structlog

from muster.errors import InvalidInput, MusterError, PayloadTooLarge, SetupError, UpstreamFailed, UpstreamTimeout
from muster.links import calls
from muster.links.calls import CallingLink, M, R, wait_s_of
from muster.links.grpc.agent_control_pb2 import Call, Reply
from muster.links.grpc.service import BODY_BYTES_MAX, CALLS_MAX, CONNECT, CONNECTION_OPTIONS, FRAME_BYTES_MAX
from muster.links.grpc.statuses import error_of
from muster.links.problems import error_told
from muster.wire import decode, encode

log = structlog.get_logger()

SCHEMES = ("grpc", "grpcs")
DEFAULT_PORT = 50051

_SETTLED_S = 1.0  # a stream that ends sooner was no success
_FRAMES_MAX = 4 * CALLS_MAX

Connect = grpc.aio.StreamStreamMultiCallable[Call, Reply]
Stream = grpc.aio.StreamStreamCall[Call, Reply]


class GrpcLink(CallingLink):
    """A Lifecycle. Calls made while no stream is open wait for the next one, as far as their deadline allows.

    When the control plane ends a stream in order, calls that have no reply are sent again on the next one; when a
    stream breaks they fail. `pause_s` tells how long to wait after that many failures in a row.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        pause_s: Callable[[int], float],
        on_open: Callable[[], None] = lambda: None,
        trusted_pem: bytes | None = None,
        timeout_s: float = 10.0,
        ping_every_s: float = 10.0,
        ping_timeout_s: float = 5.0,
    ) -> None:
        """`trusted_pem` are the certificates to trust in place of gRPC's own, for grpcs://."""
        self._url = url
        self._target, self._tls = _target(url)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._pause_s = pause_s
        self._on_open = on_open
        self._trusted_pem = trusted_pem
        self._timeout_s = timeout_s
        self._ping_every_ms = round(ping_every_s * 1000)
        self._ping_timeout_ms = round(ping_timeout_s * 1000)
        self._ids = count(1)
        self._asked: dict[int, tuple[Call, asyncio.Future[Reply]]] = {}
        self._outgoing: asyncio.Queue[Call] | None = None  # of the open stream
        self._was_open = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._outgoing is not None

    async def start(self) -> None:
        """Begin to open the stream; whether that succeeds, calls will tell."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_open(), name="grpc-link")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._fail(UpstreamFailed(f"the link to {self._url} is closed"))

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _call(self, call: calls.Call[M, R], message: M) -> R:
        frame = Call(id=next(self._ids), name=call.name, body=encode(message))
        if len(frame.body) > BODY_BYTES_MAX:
            raise PayloadTooLarge(f"{call.name} would send {len(frame.body)} bytes, at most {BODY_BYTES_MAX} may be")
        if self._task is None or len(self._asked) >= CALLS_MAX:
            reason = "is closed" if self._task is None else f"has {CALLS_MAX} calls without a reply"
            raise UpstreamFailed(f"the link to {self._url} {reason}")
        deadline_s = self._timeout_s + wait_s_of(message)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[frame.id] = (frame, answered)
        self._send(frame)
        try:
            async with asyncio.timeout(deadline_s):
                reply = await answered
        except TimeoutError:
            self._send(Call(id=frame.id, cancel=True))
            raise UpstreamTimeout(f"{self._url} did not answer {call.name} within {deadline_s:g} s") from None
        except asyncio.CancelledError:
            self._send(Call(id=frame.id, cancel=True))
            raise
        finally:
            del self._asked[frame.id]
        if reply.HasField("error"):
            raise error_told(reply.error) or UpstreamFailed(
                f"{self._url} failed: {reply.error.decode(errors='replace')}"
            )
        try:
            return decode(reply.body, call.reply)
        except InvalidInput as error:
            raise UpstreamFailed(f"{self._url} answered something else than was asked for: {error.message}") from None

    def _send(self, frame: Call) -> None:
        """Hand it to the open stream; without one, what waits is sent when there is one."""
        if self._outgoing is not None and not self._outgoing.full():  # full: the stream is stuck, and its end is near
            self._outgoing.put_nowait(frame)

    def _fail(self, error: MusterError) -> None:
        for _, answered in self._asked.values():
            if not answered.done():
                answered.set_exception(error)

    # --- the stream --------------------------------------------------------------------------------------------------

    async def _keep_open(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_s = loop.time()
            error = await self._run_stream()
            settled = loop.time() - started_s >= _SETTLED_S and (error is None or self._was_open)
            failures = 0 if settled else failures + 1
            delay_s = self._pause_s(failures) if failures else 0.0
            if error is None:
                log.info("link_renewed", url=self._url)
            else:
                self._fail(error)
                log.warning(
                    "link_lost", url=self._url, error=error.message, attempt=failures, retry_in_s=round(delay_s, 2)
                )
            await asyncio.sleep(delay_s)

    async def _run_stream(self) -> MusterError | None:
        """Open a stream and use it to its end; None when the control plane ended it in order."""
        self._was_open = False
        async with self._channel() as channel:
            connect: Connect = channel.stream_stream(
                CONNECT, request_serializer=Call.SerializeToString, response_deserializer=Reply.FromString
            )
            stream = connect(metadata=self._metadata)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await stream.initial_metadata()
                if not stream.done():
                    await self._use(stream)
            except TimeoutError:
                return UpstreamTimeout(f"{self._url} did not answer within {self._timeout_s:g} s")
            except grpc.aio.AioRpcError as error:
                return error_of(self._url, error.code(), error.details() or "")
            code = await stream.code()
            if code is not grpc.StatusCode.OK:
                return error_of(self._url, code, await stream.details() or "")
        return None

    async def _use(self, stream: Stream) -> None:
        self._was_open = True
        self._outgoing = asyncio.Queue(_FRAMES_MAX)
        for frame, _ in self._asked.values():
            self._send(frame)
        writer = asyncio.create_task(self._write(stream, self._outgoing))
        log.info("link_opened", url=self._url)
        self._on_open()
        try:
            async for reply in stream:
                _, answered = self._asked.get(reply.id, (None, None))
                if answered is not None and not answered.done():
                    answered.set_result(reply)
        finally:
            self._outgoing = None
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, stream: Stream, outgoing: asyncio.Queue[Call]) -> None:
        """Alone writes: a caller that gave up while writing would end the stream for all."""
        while True:
            frame = await outgoing.get()
            if frame.cancel or frame.id in self._asked:
                await stream.write(frame)

    def _channel(self) -> grpc.aio.Channel:
        """Make a channel for one stream: it looks the name up anew, and has no backoff of its own."""
        options: list[tuple[str, int]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", 2 * FRAME_BYTES_MAX),
            ("grpc.max_send_message_length", FRAME_BYTES_MAX),
            ("grpc.keepalive_time_ms", self._ping_every_ms),
            ("grpc.keepalive_timeout_ms", self._ping_timeout_ms),
            ("grpc.http2.ping_timeout_ms", self._ping_timeout_ms),  # without it the one above waits for a minute
            *CONNECTION_OPTIONS,
            ("grpc.http2.max_pings_without_data", 0),
        ]
        if not self._tls:
            return grpc.aio.insecure_channel(self._target, options)
        return grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(self._trusted_pem), options)


def _target(url: str) -> tuple[str, bool]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host, port = None, 0
    if parts.scheme not in SCHEMES or not host:
        raise SetupError(f"{url!r} is no gRPC address", next_step=f"try grpc://HOST:{DEFAULT_PORT}")
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), parts.scheme == "grpcs"
