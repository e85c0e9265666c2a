"""Nodes whose connection ended: who is not heard again soon takes no new work, long before silence would tell."""

import asyncio

from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.ids import NodeId


class Presence:
    """A Lifecycle. `link` is the one whose connections are watched; a node heard over any link is there."""

    def __init__(self, fleet: Fleet, clock: Clock, *, link: str, patience_s: float = 2.0) -> None:
        self._fleet = fleet
        self._clock = clock
        self._link = link
        self._patience_s = patience_s
        self._waiting: dict[NodeId, asyncio.TimerHandle] = {}

    @property
    def waits_for(self) -> frozenset[NodeId]:
        return frozenset(self._waiting)

    async def start(self) -> None:
        """Wait to be told."""

    async def stop(self) -> None:
        """Judge nobody any more: it is we who go."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def ended(self, node_id: NodeId) -> None:
        if (earlier := self._waiting.pop(node_id, None)) is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        self._waiting[node_id] = loop.call_later(self._patience_s, self._judge, node_id, self._clock.now_ms())

    def _judge(self, node_id: NodeId, ended_ms: int) -> None:
        del self._waiting[node_id]
        node = self._fleet.book.get(node_id)
        if node is not None and node.last_seen_ms <= ended_ms:
            now_ms = self._clock.now_ms()
            self._fleet.carry_out(self._fleet.book.link_changed(node_id, self._link, now_ms, connected=False))
