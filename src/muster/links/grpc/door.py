"""The gRPC port before anybody has called: gRPC itself takes 10 MB, and most control planes never hear it spoken.

Nothing here loads it. The first word that comes does: then the server takes over the address, and whoever spoke
before that is passed on to it, for as long as that connection lasts.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

import structlog

_FIRST_WORD_S = 10.0  # a probe that only connects is none
_CONNECT_S = 5.0
_READ_BYTES = 65_536

log = structlog.get_logger()


class GrpcDoor:
    """A Lifecycle. `start` raises OSError when the address cannot be had."""

    def __init__(
        self, address: tuple[str, int], load: Callable[[], None], take_over: Callable[[int], Awaitable[None]]
    ) -> None:
        """`load` is run in a thread: it takes a while, in which all else goes on. `take_over` is told the free port."""
        self._address = address
        self._load = load
        self._take_over = take_over
        self._listener: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._callers: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        host, port = self._address
        self._listener = await asyncio.start_server(self._called, host, port)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self._address = host, self.port

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def stop(self) -> None:
        self._close()
        tasks = [*self._callers, *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _called(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="grpc caller")
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FIRST_WORD_S):
                said = await reader.read(_READ_BYTES)
            if said and await self._is_open():
                await _pass_on(said, reader, writer)

    async def _is_open(self) -> bool:
        """Wait for the server; the first who asks has it started."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="grpc opening")
        try:
            await asyncio.shield(self._opening)
        except Exception:  # whatever it is, this caller has to come again
            log.exception("grpc_not_opened")
            self._opening = None
            return False
        return True

    async def _open(self) -> None:
        await asyncio.to_thread(self._load)
        self._close()
        try:
            await self._take_over(self.port)
        except BaseException:
            await self.start()  # so that those who come again are heard
            raise
        log.info("grpc_opened", port=self.port)


async def _pass_on(said: bytes, near: StreamReader, back: StreamWriter) -> None:
    """Carry bytes both ways until either side ends; the server is where the caller had come to."""
    host, port, *_ = back.get_extra_info("sockname")
    async with asyncio.timeout(_CONNECT_S):
        far, forth = await asyncio.open_connection(host, port)
    with contextlib.closing(forth):
        forth.write(said)
        ways = [asyncio.ensure_future(_carry(near, forth)), asyncio.ensure_future(_carry(far, back))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()


async def _carry(reader: StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
