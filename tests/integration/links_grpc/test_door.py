"""The gRPC port before anybody has spoken gRPC: what it costs nobody, and what the first callers get."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from muster.links.grpc.door import GrpcDoor
from tests.waiting import eventually


class Server:
    """What the door opens to: it gives back what it is sent, until it is told to end."""

    def __init__(self) -> None:
        self.loaded = self.callers = 0
        self.problem: Exception | None = None
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    def load(self) -> None:
        self.loaded += 1
        if self.problem is not None:
            raise self.problem

    async def take_over(self, port: int) -> None:
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", port)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        self._writers.append(writer)
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async def stop(self) -> None:
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()


@asynccontextmanager
async def opened(server: Server) -> AsyncIterator[GrpcDoor]:
    door = GrpcDoor(("127.0.0.1", 0), server.load, server.take_over)
    await door.start()
    try:
        yield door
    finally:
        await server.stop()
        await door.stop()


async def says(port: int, *words: bytes) -> bytes:
    """Say them one after the other; return what comes back until the other side ends, or all of it is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        async with asyncio.timeout(10):
            for word in words:
                writer.write(word)
                heard += await reader.read(1000)
    finally:
        writer.close()
    return heard


@asynccontextmanager
async def heard_the_end(port: int) -> AsyncIterator[None]:
    """Have somebody be passed on, who hears that it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"word")
    assert await reader.readexactly(4) == b"word"
    yield
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_whoever_speaks_first_is_passed_on_and_the_next_ones_come_to_the_server() -> None:
    server = Server()
    async with opened(server) as door:
        port = door.port
        first, second = await asyncio.gather(says(port, b"one", b"two"), says(port, b"three"))
        assert (first, second, server.loaded) == (b"onetwo", b"three", 1)
        assert await says(port, b"four") == b"four"
        assert (server.callers, server.loaded) == (3, 1)


async def test_a_look_whether_the_port_is_open_loads_nothing() -> None:
    server = Server()
    async with opened(server) as door:
        assert await says(door.port) == b""
        assert server.loaded == 0


async def test_a_caller_hears_when_the_server_ends_and_the_server_when_the_caller_does() -> None:
    server = Server()
    async with opened(server) as door, heard_the_end(door.port):
        await server.stop()


async def test_what_could_not_be_opened_is_tried_again_with_the_next_caller() -> None:
    server = Server()
    server.problem = ImportError("broken")
    async with opened(server) as door:
        assert await says(door.port, b"word") == b""
        server.problem = None
        assert await says(door.port, b"word") == b"word"
        assert server.loaded == 2


async def test_where_the_server_cannot_begin_callers_are_still_heard() -> None:
    server = Server()

    async def refuse(port: int) -> None:
        raise OSError(f"no {port}")

    door = GrpcDoor(("127.0.0.1", 0), server.load, refuse)
    await door.start()
    port = door.port
    assert await says(port, b"word") == b""
    assert await says(port, b"word") == b""
    assert (server.loaded, door.port) == (2, port)
    await door.stop()
    with pytest.raises(ConnectionRefusedError):
        await says(port)


async def test_stopping_ends_whoever_is_passed_on() -> None:
    server = Server()
    async with opened(server) as door:
        async with heard_the_end(door.port):
            await door.stop()
        await eventually(lambda: server.callers == 1, 5.0)
