"""One port for everything: the gateway's paths on our own protocol, all others on uvicorn's, in one loop."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import structlog

from muster.gateway.connection import Connection
from muster.gateway.gateway import Gateway
from muster.gateway.guest import AsgiApp, Guests, Hospitality

_BACKLOG = 4096
_LOOK_S = 0.02
_HANDSHAKE_S = 10.0
_GOODBYE_S = 5.0

_log = structlog.get_logger()


class Front:
    """Listens on every address of `listen`; port 0 takes a free one.

    `shared`: with other processes, among which the kernel deals connections out. `private` is one address more, without
    TLS, for those who bring us their guests.
    """

    def __init__(
        self,
        gateway: Gateway,
        guests: AsgiApp | Hospitality,
        listen: Sequence[tuple[str, int]],
        *,
        tls: ssl.SSLContext | None = None,
        shared: bool = False,
        private: tuple[str, int] | None = None,
    ) -> None:
        self._gateway = gateway
        self._guests = Guests(guests) if callable(guests) else guests
        self._listen = tuple(listen)
        self._shared = shared
        self._private = private
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {"ssl": tls, "ssl_handshake_timeout": _HANDSHAKE_S, "ssl_shutdown_timeout": _GOODBYE_S}
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        servers = self._servers[: len(self._listen)]
        return [socket.getsockname()[:2] for server in servers for socket in server.sockets]

    @property
    def private_address(self) -> tuple[str, int]:
        """Return where those reach us who bring us their guests; it must have been asked for."""
        host, port = self._servers[-1].sockets[0].getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Raise OSError that names the address when it cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            if self._shared and self._private is not None:
                await self._check_alone(loop)
            for host, port in self._listen:
                self._servers.append(await self._bind(loop, host, port, reuse_port=self._shared, **self._tls))
            if self._private is not None:
                self._servers.append(await self._bind(loop, *self._private))
            await self._guests.start()
            for server in self._servers:
                await server.start_serving()
        except BaseException:
            self._close_servers()
            raise
        self._sweep()

    async def _check_alone(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be the first of those who share: a stranger who shares as well would get a part of our callers."""
        for host, port in self._listen:
            server = await self._bind(loop, host, port)
            server.close()
            await server.wait_closed()

    async def _bind(self, loop: asyncio.AbstractEventLoop, host: str, port: int, **options: Any) -> asyncio.Server:
        try:
            return await loop.create_server(
                self._connection, host, port, backlog=_BACKLOG, start_serving=False, **options
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from error

    def _connection(self) -> Connection:
        return Connection(self._gateway, self._guests, self._connections)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(self._gateway.limits.sweep_s, self._sweep)
        self._gateway.sweep()
        now_s = self._gateway.clock.monotonic_s()
        for connection in list(self._connections):
            connection.check(now_s)

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, let what runs end until the deadline, then end it with an error."""
        self._close_servers()
        for connection in list(self._connections):
            connection.shut_down()
        self._guests.shut_down_websockets()
        try:
            async with asyncio.timeout(drain_s):
                # No event tells when uvicorn's WebSockets are gone.
                while self._connections or self._guests.connections:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            _log.warning(
                "connections_cut_at_stop", connections=len(self._connections), in_flight=self._gateway.in_flight
            )
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._gateway.hand_over()
        self._gateway.end_all()
        for connection in list(self._connections):
            connection.transport.abort()
        self._guests.abort()
        await self._guests.stop()

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
