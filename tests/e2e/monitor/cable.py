"""The cable between a browser and a control plane, to be cut: a TCP relay that breaks connections or swallows them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_PIECE = 65_536


class Cable:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "", parts.port or 0)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._passing = asyncio.Event()
        self._passing.set()
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def plug_in(self) -> None:
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break what there is, and refuse what comes."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._break()

    def swallow(self) -> None:
        """Let nothing through any more, and say so to nobody."""
        self._passing.clear()

    def _break(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._to)
            self._ends |= {writer, far_writer}
            try:
                await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
            finally:
                self._ends -= {writer, far_writer}
                for end in (writer, far_writer):
                    end.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._passing.wait()
            writer.write(piece)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def cable_to(url: str) -> AsyncIterator[Cable]:
    cable = Cable(url)
    await cable.plug_in()
    yield cable
    await cable.plug_in()
    await cable.cut()
