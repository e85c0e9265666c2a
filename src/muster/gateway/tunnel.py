"""In a process that has the gateway alone: whoever asks for anything else is handed on, with the whole connection.

What follows on that connection goes to the first process as it comes, also what is the gateway's: that one has a
gateway, too. So streams, WebSockets and long requests of agents need nothing of their own here.
"""

import asyncio
from contextlib import suppress
from typing import cast

import structlog

from muster.errors import ShuttingDown
from muster.gateway.guest import Host
from muster.gateway.http.reply import Reply

_CONNECT_S = 5.0

log = structlog.get_logger()


class Tunnels:
    """Guests of another process."""

    def __init__(self, address: tuple[str, int]) -> None:
        """`address` is where the first process listens for us alone."""
        self.address = address
        self.open: set[Tunnel] = set()

    async def start(self) -> None:
        """Nothing has to run: the first process does."""

    def new(self, host: Host) -> "Tunnel":
        del host  # it gives its connection away
        return Tunnel(self)

    def shut_down_websockets(self) -> None:
        """Leave it to the first process, which serves them."""

    @property
    def connections(self) -> int:
        return len(self.open)

    def abort(self) -> None:
        for tunnel in list(self.open):
            tunnel.abort()

    async def stop(self) -> None:
        """Nothing was started."""


class Tunnel(asyncio.Protocol):
    """The caller's side; it takes the connection over for good."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._early: list[bytes] = []  # what came before the other side was there
        self._far: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._near: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._near = near = cast("asyncio.Transport", transport)
        self._tunnels.open.add(self)
        near.set_protocol(self)
        near.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(near), name="tunnel")

    async def _connect(self, near: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                far, _ = await loop.create_connection(lambda: _FarSide(self), *self._tunnels.address)
        except OSError as error:
            log.warning("first_process_not_reached", error=str(error) or type(error).__name__)
            problem = ShuttingDown("the control plane of this gateway is away: try again")
            near.write(Reply.json(problem.to_dict(), status=problem.http_status).render(b"", keep_alive=False))
            near.close()
            return
        self._far = far
        if near.is_closing():
            far.abort()
            return
        far.writelines(self._early)
        self._early.clear()
        near.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            self._early.append(data)
        else:
            self._far.write(data)

    def pause_writing(self) -> None:
        if self._far is not None:
            self._far.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None:
            self._far.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._tunnels.open.discard(self)
        if self._far is not None:
            self._far.abort()  # whoever left waits for nothing more

    def shutdown(self) -> None:
        """As with every guest; the first process ends what it serves."""

    def abort(self) -> None:
        if self._near is not None:
            self._near.abort()

    # --- from the other side -----------------------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        if self._near is not None:
            self._near.write(data)

    def hold(self, *, on: bool) -> None:
        """Read nothing from the caller while the first process takes nothing."""
        near = self._near
        if near is not None and not near.is_closing():
            with suppress(RuntimeError):
                near.pause_reading() if on else near.resume_reading()

    def answered(self) -> None:
        if self._near is not None:
            self._near.close()


class _FarSide(asyncio.Protocol):
    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        self._tunnel.answer(data)

    def pause_writing(self) -> None:
        self._tunnel.hold(on=True)

    def resume_writing(self) -> None:
        self._tunnel.hold(on=False)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._tunnel.answered()
