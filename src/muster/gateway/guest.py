"""Everything that is not the gateway's goes to uvicorn's own protocol, on the same connection and in the same loop."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol, cast

from muster.gateway.uvicorn_parts import Config, HttpToolsProtocol, LifespanOn, ServerState

# Our own sweep closes idle connections; uvicorn's timer must only never be the first.
_KEEP_ALIVE_S = 3600
_HOST = "muster.connection"
WRITE_NOW = "muster.write_now"  # in a request's state: write a part of its answer past all layers; False: not now

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Host(Protocol):
    """The connection a guest speaks on."""

    def guest_answered(self) -> None: ...
    def write_now(self, data: bytes) -> bool: ...


class Guest(Protocol):
    """Who serves what is not the gateway's, on one connection. It may take that over for good."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def shutdown(self) -> None: ...


class Hospitality(Protocol):
    """All guests of a front."""

    @property
    def connections(self) -> int: ...
    async def start(self) -> None: ...
    def new(self, host: Host) -> Guest: ...
    def shut_down_websockets(self) -> None: ...
    def abort(self) -> None: ...
    async def stop(self) -> None: ...


class Guests:
    """uvicorn without its server: told of connections instead of listening for them."""

    def __init__(self, app: AsgiApp) -> None:
        self._config = Config(
            _Watched(app),
            http="httptools",
            ws="websockets-sansio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._state = ServerState()
        self._lifespan = LifespanOn(self._config)
        self._started = False

    async def start(self) -> None:
        self._started = True
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise RuntimeError("the web application did not start; the log says why")

    def new(self, host: Host) -> HttpToolsProtocol:
        state = self._lifespan.state | {_HOST: host}
        return HttpToolsProtocol(config=self._config, server_state=self._state, app_state=state)

    def shut_down_websockets(self) -> None:
        """Say goodbye on those connections that have become the guest's for good."""
        for connection in list(self._state.connections):
            if not isinstance(connection, HttpToolsProtocol):
                connection.shutdown()

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    def abort(self) -> None:
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def stop(self) -> None:
        if self._started:  # uvicorn would wait for ever for the end of what never began
            await self._lifespan.shutdown()


class _Watched:
    """Tell the connection when an answer is complete: only then the next request on it may be the gateway's."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        host = cast("Host", scope["state"].pop(_HOST))
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        scope["state"][WRITE_NOW] = partial(_write_part, host)

        async def watched_send(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                host.guest_answered()

        await self._app(scope, receive, watched_send)


def _write_part(host: Host, part: bytes) -> bool:
    return host.write_now(_chunk(part))


@lru_cache(maxsize=4)
def _chunk(part: bytes) -> bytes:
    """Frame it as uvicorn does with answers of unknown length; what goes to many at once is framed once."""
    return b"%x\r\n%b\r\n" % (len(part), part)
