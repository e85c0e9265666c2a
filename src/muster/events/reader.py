"""One listener of live events: a bounded line of ready-made frames, never waited for."""

import asyncio
from collections import deque
from collections.abc import Callable


class Reader:
    """Frames are bytes as they go on the wire. Over `bytes_max` the line is dropped and a gap remembered.

    `wants` says whether a frame about this subject (a machine, a job) is for this reader.
    """

    def __init__(self, bytes_max: int, wants: Callable[[str | None], bool] | None = None) -> None:
        self._bytes_max = bytes_max
        self._wants = wants
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._ready = asyncio.Event()
        self._gap: str | None = None
        self.closed = False

    def push(self, frame: bytes, subject: str | None = None) -> None:
        if self._gap is not None or (self._wants is not None and not self._wants(subject)):
            return
        if self._size + len(frame) > self._bytes_max:
            self.lose("this reader was too slow")
            return
        self._frames.append(frame)
        self._size += len(frame)
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
        """Return (all waiting frames joined, None), (b"", why) after a gap, (b"", None) at the deadline or the end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return b"", None
        gap, self._gap = self._gap, None
        joined = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        if not self.closed:
            self._ready.clear()
        return joined, gap
