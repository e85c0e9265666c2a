"""An answer that comes through another gateway, or has come: read from the store."""

import asyncio
from typing import Protocol

from muster.domain.service import Dialect
from muster.domain.stream import KeptStream, StreamEnd
from muster.gateway.resuming.recording import Reader, Recording
from muster.gateway.resuming.terms import Head, Opening, not_found
from muster.ports import StreamStore

_READ_BYTES = 262_144
_LOOK_S = 0.05  # between two looks at an answer that somebody else goes on with


class Heirs(Protocol):
    """Who goes on with answers here."""

    def running(self, stream_id: str) -> Recording | None: ...
    async def take_over(
        self, stream_id: str, opening: Opening, secrets: dict[bytes, bytes], *, counted: bool
    ) -> Recording | None: ...


class Followed:
    """Once nobody goes on with it any more, its first reader has that done here."""

    def __init__(
        self,
        heirs: Heirs,
        store: StreamStore,
        stream_id: str,
        opening: Opening,
        kept: KeptStream,
        secrets: dict[bytes, bytes],
    ) -> None:
        self._heirs = heirs
        self._store = store
        self._stream_id = stream_id
        self._opening = opening
        self._size = kept.size if kept.end is not None else None
        self._secrets = secrets
        self._here: Recording | None = None
        self._readers: set[Reader] = set()

    is_kept = True

    @property
    def head(self) -> Head | None:
        return self._opening.head

    @property
    def lines(self) -> bytes:
        return b"x-muster-stream: %b\r\nx-muster-resumable: %g\r\n" % (self._stream_id.encode(), self._opening.keep_s)

    @property
    def dialect(self) -> Dialect:
        return self._opening.dialect

    def length_from(self, offset: int) -> int | None:
        whole = self._size if self._size is not None else self._opening.head.length
        return None if whole is None else whole - offset

    def join(self, reader: Reader) -> None:
        self._readers.add(reader)

    def leave(self, reader: Reader, now_s: float) -> None:
        self._readers.discard(reader)
        if self._here is not None:
            self._here.leave(reader, now_s)

    def advanced(self) -> None:
        if self._here is not None:
            self._here.advanced()

    async def read(self, offset: int) -> tuple[bytes, StreamEnd | None]:
        while self._here is None:
            kept = await self._store.read(self._stream_id, offset, _READ_BYTES)
            if kept is None or kept.end is StreamEnd.DROPPED:
                raise not_found(self._stream_id)
            if kept.data or kept.end is not None:
                return kept.data, kept.end if offset + len(kept.data) == kept.size else None
            here = self._heirs.running(self._stream_id)
            if here is None and not kept.running:
                here = await self._heirs.take_over(
                    self._stream_id,
                    self._opening,
                    self._secrets,
                    counted=kept.handed_over,  # a gateway that is stopped charges for what it told, a dead one cannot
                )
            if here is None:
                await asyncio.sleep(_LOOK_S)
            else:
                self._become(here)
        return await self._here.read(offset)

    def _become(self, recording: Recording) -> None:
        """Read from memory what goes on here."""
        self._here = recording
        for reader in self._readers:
            recording.join(reader)
