"""A TCP relay between two ends that can cut its connections, or swallow all that they carry."""

import asyncio
from types import TracebackType
from typing import Self

_BYTES = 65_536


class Relay:
    """`cut` and `swallow` are for the connections there are; later ones are relayed again.

    With nobody behind it (`target_port` 0) it accepts, and is silent.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.swallow()
        self.cut()

    def refuse(self) -> None:
        """Be as a server that is not there, until `accept`."""
        assert self._server is not None
        self._server.close()
        self.cut()

    async def accept(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def swallow(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()
        self._pipes.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._target_port:
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(behind_writer)
            for source, sink in ((reader, behind_writer), (behind_reader, writer)):
                self._pipes.add(asyncio.create_task(_pass_on(source, sink)))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_BYTES):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    sink.close()
