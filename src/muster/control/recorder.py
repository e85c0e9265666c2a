"""Writes what the rules decided: node records and events, in batches, in order, again after the store was away."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import structlog

from muster.domain.event import Event
from muster.domain.node import Node
from muster.errors import MusterError
from muster.ids import NodeId
from muster.ports import EventLog, NodeStore
from muster.rounds import Rounds
from muster.wire.peers import NodeGone, NodeNews

log = structlog.get_logger()

_BATCH_S = 0.05
_RETRY_S = 0.5
_EVENTS_MAX = 10_000
_EVENTS_PER_WRITE = 500


NODE_REGISTERED = "node_registered"

Tell = Callable[[NodeNews], Awaitable[None]]


class Recorder:
    """A Lifecycle. Records are coalesced per node; events are kept in order up to a bound, the oldest dropped first."""

    def __init__(self, nodes: NodeStore, events: EventLog) -> None:
        self._nodes = nodes
        self._log = events
        self._dirty: dict[NodeId, Node] = {}
        self._gone: dict[NodeId, NodeGone] = {}
        self._newborn: dict[str, Node | None] = {}  # as first seen, if it was: who keeps it first may tell of it
        self._events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self._tell: Tell | None = None
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._rounds = Rounds()
        self.events_dropped = 0

    @property
    def backlog(self) -> dict[str, int]:
        """Count what waits to be written."""
        return {"nodes": len(self._dirty) + len(self._gone), "events": len(self._events)}

    def on_written(self, tell: Tell) -> None:
        """Have other control planes told of what was written. What `tell` raises has it written and told again."""
        self._tell = tell

    def save(self, node: Node) -> None:
        self._dirty[node.node_id] = node
        if node.node_id in self._newborn and self._newborn[node.node_id] is None:
            self._newborn[node.node_id] = node
        self._wanted.set()

    def drop(self, gone: NodeGone) -> None:
        self._forget(gone.node_id)
        self._gone[gone.node_id] = gone
        self._wanted.set()

    def correct(self, node_id: NodeId, node: Node | None) -> None:
        """Keep what waits to be written from undoing what another control plane has written."""
        if node is None:
            self._forget(node_id)
        elif node_id in self._dirty:
            self._dirty[node_id] = node

    def _forget(self, node_id: NodeId) -> None:
        self._dirty.pop(node_id, None)
        self._newborn.pop(node_id, None)

    def emit(self, events: Iterable[Event]) -> None:
        for event in events:
            if len(self._events) == _EVENTS_MAX:
                self.events_dropped += 1
            self._events.append(event)
            if event.kind == NODE_REGISTERED:
                self._newborn[event.key] = None
            log.info(event.kind, about=event.key, data=event.data)  # an agent may name its data as it likes
        self._wanted.set()

    async def start(self) -> None:
        self._rounds.go("records", self._run, _BATCH_S, _RETRY_S)

    async def stop(self) -> None:
        """Write what is left, once."""
        await self._rounds.stop(last=self.flush)

    async def _run(self) -> None:
        await self._wanted.wait()
        self._wanted.clear()
        try:
            await self.flush()
        except MusterError:
            self._wanted.set()
            raise

    async def flush(self) -> None:
        """Write what waits now; raises StoreUnavailable and keeps it when the store is away.

        Once it returns, what was saved before the call is kept, whoever wrote it.
        """
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        dirty, self._dirty = self._dirty, {}
        gone, self._gone = self._gone, {}
        try:
            if gone:
                await self._nodes.delete(list(gone))
            await self._settle_newborn()
            if dirty:
                await self._nodes.save(list(dirty.values()))
            if self._tell is not None and (dirty or gone):
                await self._tell(NodeNews(saved=tuple(dirty.values()), gone=tuple(gone.values())))
        except MusterError:
            self._gone = {node_id: drop for node_id, drop in gone.items() if node_id not in self._dirty} | self._gone
            self._dirty = {node_id: node for node_id, node in dirty.items() if node_id not in self._gone} | self._dirty
            raise
        while batch := self._take_events():
            try:
                await self._log.append(batch)
            except MusterError:
                self._events.extendleft(reversed(batch))
                raise

    def _take_events(self) -> list[Event]:
        """Take the next events to write, up to the first one of a node that came while others were written."""
        batch: list[Event] = []
        while self._events and len(batch) < _EVENTS_PER_WRITE:
            if self._events[0].kind == NODE_REGISTERED and self._events[0].key in self._newborn:
                break
            batch.append(self._events.popleft())
        return batch

    async def _settle_newborn(self) -> None:
        """Leave it to another control plane to tell of a new node that it has kept before us."""
        for node_id, node in list(self._newborn.items()):
            if node is not None and not await self._nodes.create(node):
                kept = (event for event in self._events if (event.kind, event.key) != (NODE_REGISTERED, node_id))
                self._events = deque(kept, maxlen=_EVENTS_MAX)
            self._newborn.pop(node_id, None)
