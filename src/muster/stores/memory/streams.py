from collections.abc import Sequence

from msgspec import Struct

from muster.clock import Clock
from muster.domain.stream import KeptStream, StreamEnd, StreamPart


class _Kept(Struct):
    opening: bytes
    runner: str
    body: bytearray
    size: int = 0
    lease_ms: int = 0
    until_ms: int = 0
    read_ms: int = 0
    end: StreamEnd | None = None

    @property
    def bytes(self) -> int:
        return len(self.opening) + len(self.body)


class MemoryStreams:
    """A StreamStore."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def write(self, parts: Sequence[StreamPart], bytes_max: int) -> list[int | None]:
        now_ms = self._clock.now_ms()
        self._kept = {stream_id: kept for stream_id, kept in self._kept.items() if kept.until_ms > now_ms}
        return [self._write(part, bytes_max, now_ms) for part in parts]

    def _write(self, part: StreamPart, bytes_max: int, now_ms: int) -> int | None:
        kept = self._kept.get(part.stream_id)
        if kept is None and part.opening:
            new = len(part.opening) + len(part.data)
            if new + sum(other.bytes for other in self._kept.values()) > bytes_max:
                return None
            kept = self._kept[part.stream_id] = _Kept(part.opening, part.runner, bytearray())
        if kept is None or kept.runner != part.runner or (kept.end is not None and kept.end != part.end):
            return None
        if kept.end is None and kept.size == part.offset:
            kept.body += part.data
            kept.size += len(part.data)
        elif kept.size != part.offset + len(part.data):
            return None
        kept.end = part.end
        if part.end is StreamEnd.DROPPED:
            kept.body.clear()
        if not part.lease_s:
            kept.runner = ""
        kept.lease_ms = now_ms + round(part.lease_s * 1000)
        kept.until_ms = now_ms + round(part.keep_s * 1000)
        return kept.read_ms

    async def read(self, stream_id: str, offset: int, limit: int) -> KeptStream | None:
        now_ms = self._clock.now_ms()
        kept = self._find(stream_id)
        if kept is None:
            return None
        kept.read_ms = now_ms
        return KeptStream(
            opening=kept.opening,
            size=kept.size,
            data=bytes(kept.body[offset : offset + limit]),
            end=kept.end,
            running=kept.end is None and kept.lease_ms > now_ms,
            handed_over=not kept.runner,
        )

    async def take(self, stream_id: str, runner: str, lease_s: float) -> bool:
        now_ms = self._clock.now_ms()
        kept = self._find(stream_id)
        if kept is None or kept.end is not None or kept.lease_ms > now_ms:
            return False
        kept.runner, kept.lease_ms = runner, now_ms + round(lease_s * 1000)
        return True

    async def remove(self, stream_id: str) -> bool:
        there = self._find(stream_id) is not None
        self._kept.pop(stream_id, None)
        return there

    def _find(self, stream_id: str) -> _Kept | None:
        kept = self._kept.get(stream_id)
        return kept if kept is not None and kept.until_ms > self._clock.now_ms() else None
