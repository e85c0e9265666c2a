from collections.abc import Iterator, Sequence

from muster.domain.stream import KeptStream, StreamEnd, StreamPart
from muster.stores.valkey.server import Server


class ValkeyStreams:
    """A StreamStore: a hash and a string for each answer."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def write(self, parts: Sequence[StreamPart], bytes_max: int) -> list[int | None]:
        words = [word for part in parts for word in _words(part)]
        answers: list[int] = await self._server.run("write_streams", bytes_max, *words)
        return [None if answer < 0 else answer for answer in answers]

    async def read(self, stream_id: str, offset: int, limit: int) -> KeptStream | None:
        found = await self._server.run("read_stream", stream_id, offset, limit)
        if not found:
            return None
        opening, size, data, end, running, handed_over = found
        return KeptStream(
            opening=opening,
            size=size,
            data=data,
            end=StreamEnd(end.decode()) if end else None,
            running=bool(running),
            handed_over=bool(handed_over),
        )

    async def take(self, stream_id: str, runner: str, lease_s: float) -> bool:
        return bool(await self._server.run("take_stream", stream_id, runner, _ms(lease_s)))

    async def remove(self, stream_id: str) -> bool:
        return bool(await self._server.run("remove_stream", stream_id))


def _words(part: StreamPart) -> Iterator[object]:
    yield from (part.stream_id, part.runner, part.offset, part.data, part.opening)
    yield from (_ms(part.keep_s), _ms(part.lease_s), part.end or "")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
