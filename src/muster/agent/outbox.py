"""What the node has to tell: kept until the control plane has taken it, the oldest given up when there is too much."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from muster.clock import Clock
from muster.domain.event import Event
from muster.ids import NodeId

log = structlog.get_logger()

EVENTS_MAX = 500


class Teller(Protocol):
    """Where facts are told."""

    def add(self, kind: str, **data: Any) -> None: ...


class Outbox:
    def __init__(self, node_id: NodeId, clock: Clock, on_add: Callable[[], None] = lambda: None) -> None:
        self._node_id = node_id
        self._clock = clock
        self._on_add = on_add
        self._events: deque[Event] = deque()
        self._dropped = 0

    def add(self, kind: str, **data: Any) -> None:
        log.info(kind, **data)
        if len(self._events) >= EVENTS_MAX:
            self._events.popleft()
            self._dropped += 1
        self._events.append(self._event(kind, data))
        self._on_add()

    def batch(self, limit: int) -> tuple[Event, ...]:
        """Return the oldest events; what was given up before them is told first."""
        if self._dropped:
            self._events.appendleft(self._event("events_dropped", {"count": self._dropped}))
            self._dropped = 0
        return tuple(self._events)[:limit]

    def taken(self, events: tuple[Event, ...]) -> None:
        """Forget what was told."""
        for event in events:
            if self._events and self._events[0] is event:
                self._events.popleft()

    def _event(self, kind: str, data: dict[str, Any]) -> Event:
        return Event(kind=kind, key=self._node_id, at_ms=self._clock.now_ms(), data=data)
