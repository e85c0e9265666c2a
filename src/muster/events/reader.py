"""One listener of live events: a bounded line of ready-made frames, never waited for."""

import asyncio
from collections import deque
from collections.abc import Callable

from muster.events.selection import Selection

# Hand bytes over to the reader's connection at once; False where that has to wait.
WriteNow = Callable[[bytes], bool]


class Reader:
    """Frames are bytes as they go on the wire. Over `bytes_max` the line is dropped and a gap remembered.

    `selection` says what of everything is for this reader; None is all. With `write_now` frames go past the line while
    it is empty and its end waits in `take`: for a thousand readers, waking each costs more than all else together.
    """

    def __init__(self, bytes_max: int, selection: Selection | None = None, write_now: WriteNow | None = None) -> None:
        self._bytes_max = bytes_max
        self.selection = selection
        self._write_now = write_now
        self._taking = False
        self._written = False  # past the line, since somebody waits at its end
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._ready = asyncio.Event()
        self._gap: str | None = None
        self.closed = False

    def push(self, frames: bytes) -> None:
        if self._gap is not None:
            return
        if self._taking and self._write_now is not None and not self._ready.is_set() and self._write_now(frames):
            self._written = True
            return
        if self._size + len(frames) > self._bytes_max:
            self.lose("this reader was too slow")
            return
        self._frames.append(frames)
        self._size += len(frames)
        self._ready.set()

    def lose(self, why: str) -> None:
        """Drop what waits; the next `take` tells the gap instead."""
        self._frames.clear()
        self._size = 0
        self._gap = why
        self._ready.set()

    def close(self) -> None:
        """End after what is in line."""
        self.closed = True
        self._ready.set()

    async def take(self, timeout_s: float) -> tuple[bytes, str | None]:
        """Return (all waiting frames joined, None), (b"", why) after a gap, (b"", None) after a silence."""
        self._taking = True
        try:
            while not await self._line_in(timeout_s):
                if not self._written:
                    return b"", None
        finally:
            self._taking = False
        gap, self._gap = self._gap, None
        joined = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        if not self.closed:
            self._ready.clear()
        return joined, gap

    async def _line_in(self, timeout_s: float) -> bool:
        """Wait for something in line; False at the deadline."""
        self._written = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True
