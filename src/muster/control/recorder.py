"""Writes what the rules decided: node records and events, in batches, in order, again after the store was away."""

import asyncio
from collections import deque
from collections.abc import Iterable

import structlog

from muster.domain.event import Event
from muster.domain.node import Node
from muster.errors import MusterError
from muster.ids import NodeId
from muster.ports import EventLog, NodeStore

log = structlog.get_logger()

_BATCH_S = 0.05
_RETRY_S = 0.5
_EVENTS_MAX = 10_000
_EVENTS_PER_WRITE = 500


class Recorder:
    """A Lifecycle. Records are coalesced per node; events are kept in order up to a bound, the oldest dropped first."""

    def __init__(self, nodes: NodeStore, events: EventLog) -> None:
        self._nodes = nodes
        self._log = events
        self._dirty: dict[NodeId, Node | None] = {}
        self._events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.events_dropped = 0

    def save(self, node: Node) -> None:
        self._dirty[node.node_id] = node
        self._wanted.set()

    def drop(self, node_id: NodeId) -> None:
        self._dirty[node_id] = None
        self._wanted.set()

    def emit(self, events: Iterable[Event]) -> None:
        for event in events:
            if len(self._events) == _EVENTS_MAX:
                self.events_dropped += 1
            self._events.append(event)
            log.info(event.kind, about=event.key, data=event.data)  # an agent may name its data as it likes
        self._wanted.set()

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="recorder")

    async def stop(self) -> None:
        """Write what is left, once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            try:
                await self.flush()
            except MusterError as error:
                log.warning("last_records_not_written", error=error.message)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.flush()
            except MusterError as error:
                log.warning("store_away", error=error.message, retry_in_s=_RETRY_S)
                self._wanted.set()
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(_BATCH_S)

    async def flush(self) -> None:
        """Write what waits now; raises StoreUnavailable and keeps it when the store is away."""
        dirty, self._dirty = self._dirty, {}
        try:
            if saved := [node for node in dirty.values() if node is not None]:
                await self._nodes.save(saved)
            if dropped := [node_id for node_id, node in dirty.items() if node is None]:
                await self._nodes.delete(dropped)
        except MusterError:
            self._dirty = dirty | self._dirty
            raise
        while self._events:
            batch = [self._events.popleft() for _ in range(min(len(self._events), _EVENTS_PER_WRITE))]
            try:
                await self._log.append(batch)
            except MusterError:
                self._events.extendleft(reversed(batch))
                raise
