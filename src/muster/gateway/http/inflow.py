"""A request's body that is too large to be held: it is passed on as it comes, and a slow taker slows its sender."""

import asyncio
from collections import deque

_HELD_BYTES_MAX = 262_144


class Inflow:
    """Filled by the connection, emptied by one task."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._news = asyncio.Event()
        self._waits = False
        self._wanted = True
        self.complete = False  # nothing more will come of it

    def put(self, data: bytes, *, last: bool) -> None:
        if data:
            self._pieces.append(data)
            self._held += len(data)
        self.complete = last
        self._news.set()
        if self._held > _HELD_BYTES_MAX and not self._waits and not last:
            self._waits = True
            self._transport.pause_reading()

    @property
    def waits(self) -> bool:
        """Tell whether its sender is kept from going on: its silence is ours."""
        return self._waits

    async def take(self) -> bytes:
        """Return what has come, empty at the end; the connection itself ends when nothing comes for too long."""
        while self._wanted and not self._pieces and not self.complete:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self.let_go()
        return data

    def cut(self) -> None:
        """Let its taker see an end: nobody wants the rest."""
        self._wanted = False
        self._pieces.clear()
        self._news.set()

    def let_go(self) -> None:
        """Read on, for the next pieces or for what is dropped."""
        if self._waits:
            self._waits = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
