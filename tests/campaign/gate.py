"""Ways between processes that can be cut: a TCP proxy that refuses, or holds back all that it carries."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

Address = int | Path  # a port of the loopback, or a socket

_BYTES = 65_536


class Gate:
    """Each connection goes to the next of `targets` that takes it, as a load balancer has it."""

    def __init__(self, *targets: Address) -> None:
        self._targets: Sequence[Address] = targets
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._refuses = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ways: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> "Gate":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        self._flows.set()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._refuses = True
        for writer in self._writers:
            writer.transport.abort()

    def hush(self) -> None:
        """Carry nothing; what is said meanwhile comes through later, as after a cable was pulled and plugged."""
        self._flows.clear()

    def heal(self) -> None:
        self._refuses = False
        self._flows.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.create_task(self._carry(reader, writer))
        self._ways.add(way)
        way.add_done_callback(self._ways.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flows.wait()
            behind = None if self._refuses else await self._connect()
            if behind is None:
                writer.transport.abort()
                return
            self._writers.add(behind[1])
            try:
                await asyncio.gather(self._pass_on(reader, behind[1]), self._pass_on(behind[0], writer))
            finally:
                self._writers.discard(behind[1])
        finally:
            self._writers.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._targets:
            self._turn += 1
            target = self._targets[self._turn % len(self._targets)]
            try:
                if isinstance(target, Path):
                    return await asyncio.open_unix_connection(target)
                return await asyncio.open_connection("127.0.0.1", target)
            except OSError:
                continue
        return None

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await self._next(source):
                sink.write(data)
                await sink.drain()
            sink.close()
        except OSError:
            sink.transport.abort()

    async def _next(self, source: asyncio.StreamReader) -> bytes:
        """Wait for more and then for its turn: that a side has gone is not heard either while nothing flows."""
        try:
            return await source.read(_BYTES)
        finally:
            await self._flows.wait()
