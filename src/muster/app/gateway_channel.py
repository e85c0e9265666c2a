"""Between the first process and one that has the gateway alone: a pair of sockets, each message after its length.

It is also how each knows that the other has gone.
"""

import asyncio
import socket
import struct
from typing import TypeVar

import msgspec
from msgspec import Struct

from muster.gateway.figures.decisions import RequestView
from muster.gateway.figures.siblings import Told

_LENGTH = struct.Struct("!I")
_MESSAGE_BYTES_MAX = 256 * 1024 * 1024

T = TypeVar("T")


class Ask(Struct, frozen=True):
    """Ask where a request went."""

    ask_id: int
    request_id: str


class Word(Struct, kw_only=True):
    """What a gateway process says: its figures, or an answer; `used` are worker and model of each answer since."""

    told: Told | None = None
    used: list[tuple[str, str]] = []
    memory_bytes: int = 0
    connections: int = 0
    answered: int | None = None  # the ask
    request: RequestView | None = None


class Channel:
    """One end. Sending never waits: whoever reads nothing for long is about to be ended anyhow."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def send(self, message: Struct) -> None:
        """Raise OSError when the other one has gone."""
        data = msgspec.msgpack.encode(message)
        self._writer.writelines([_LENGTH.pack(len(data)), data])
        await self._writer.drain()

    async def receive(self, kind: type[T]) -> T | None:
        """Return None when the other one has gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > _MESSAGE_BYTES_MAX:
                return None
            return msgspec.msgpack.decode(await self._reader.readexactly(length), type=kind)
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        self._writer.close()
