"""Telemetry live: how the workers of every node are, and the whole in figures, for whoever asks.

A reader first gets everything as it is now and then what is heard, so one that was away or too slow misses nothing that
still holds. It is never waited for: what does not fit into its line is dropped, and it gets everything anew.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Any, Protocol

import structlog
from msgspec import Struct

from muster.clock import Clock
from muster.events.reader import Reader
from muster.ids import NodeId
from muster.rounds import Rounds
from muster.sse import KEEP_ALIVE, frame

log = structlog.get_logger()

_EVENT = "heartbeat"


class Scenery(Protocol):
    """What is told; the API's views implement it. Each is framed as it is, its type included."""

    def queen(self) -> Any: ...
    def hive(self, node_id: NodeId) -> Any | None:
        """Return None for a node that is not there."""
        ...

    def hives(self) -> Iterable[Any]: ...
    def gap_s(self, node_id: NodeId) -> float:
        """Return how long after it was told of a node is left alone."""
        ...


class TelemetryLimits(Struct, frozen=True, kw_only=True):
    join_s: float = 0.01
    look_s: float = 0.05  # at those whose turn is yet to come
    queen_every_s: float = 2.5
    keep_alive_s: float = 15.0
    snapshot_bytes: int = 65_536  # as much of it as is sent at a time
    reader_bytes_max: int = 1_048_576
    retry_s: float = 0.5


class Telemetry:
    """A Lifecycle."""

    def __init__(self, scenery: Scenery, clock: Clock, limits: TelemetryLimits) -> None:
        self._scenery = scenery
        self._clock = clock
        self._limits = limits
        self._readers: set[Reader] = set()
        self._changed: dict[NodeId, None] = {}
        self._news = asyncio.Event()
        self._told_s: dict[NodeId, float] = {}
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("telemetry_queen", self._queen_often, self._limits.retry_s)
        self._rounds.go("telemetry_hives", self._hives_often, self._limits.retry_s)

    async def stop(self) -> None:
        await self._rounds.stop()
        for reader in self._readers:
            reader.close()

    @property
    def readers(self) -> int:
        return len(self._readers)

    def nodes_changed(self, node_ids: Iterable[NodeId]) -> None:
        if self._readers:
            self._changed.update(dict.fromkeys(node_ids))
            self._news.set()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        reader = Reader(self._limits.reader_bytes_max)
        self._readers.add(reader)
        try:
            for part in self._everything():
                yield part
            while not reader.closed:
                joined, gap = await reader.take(self._limits.keep_alive_s)
                if gap is not None:
                    for part in self._everything():
                        yield part
                elif joined or not reader.closed:
                    yield joined or KEEP_ALIVE
        finally:
            self._readers.discard(reader)

    def _everything(self) -> Iterable[bytes]:
        ready = bytearray(frame(self._scenery.queen(), event=_EVENT))
        for told in self._scenery.hives():
            ready += frame(told, event=_EVENT)
            if len(ready) >= self._limits.snapshot_bytes:
                yield bytes(ready)
                ready.clear()
        yield bytes(ready)

    # --- the two loops -----------------------------------------------------------------------------------------------

    async def _queen_often(self) -> None:
        due_s = self._clock.monotonic_s()
        while True:
            due_s = max(due_s + self._limits.queen_every_s, self._clock.monotonic_s())
            await asyncio.sleep(due_s - self._clock.monotonic_s())
            if self._readers:
                self._push(frame(self._scenery.queen(), event=_EVENT))

    async def _hives_often(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.look_s if self._changed else None):
                    await self._news.wait()
            self._news.clear()
            await asyncio.sleep(self._limits.join_s)
            self._tell_changed()

    def _tell_changed(self) -> None:
        """Tell of those whose turn it is; the others stay noted, and are told as they are by then."""
        now_s = self._clock.monotonic_s()
        for node_id in list(self._changed):
            if now_s < self._told_s.get(node_id, -1.0) + self._scenery.gap_s(node_id):
                continue
            del self._changed[node_id]
            told = self._scenery.hive(node_id)
            if told is None:
                self._told_s.pop(node_id, None)
            else:
                self._told_s[node_id] = now_s
                self._push(frame(told, event=_EVENT))
        if not self._readers:
            self._changed.clear()
            self._told_s.clear()

    def _push(self, ready: bytes) -> None:
        for reader in self._readers:
            reader.push(ready)
