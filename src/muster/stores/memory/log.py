import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice

from muster.domain.event import Event, LoggedEvent
from muster.stores import rules


class MemoryLog:
    """An EventLog. Ids count from 1, so the place of an id in the kept part is a subtraction."""

    def __init__(self, entries_max: int) -> None:
        self._entries: deque[LoggedEvent] = deque(maxlen=entries_max)
        self._last = 0
        self._grown = asyncio.Event()

    @property
    def entries(self) -> int:
        return len(self._entries)

    def add(self, event: Event) -> str:
        self._last += 1
        logged = LoggedEvent(id=str(self._last), event=event)
        self._entries.append(logged)
        self._grown.set()
        self._grown = asyncio.Event()
        return logged.id

    async def append(self, events: Sequence[Event]) -> list[str]:
        return [self.add(event) for event in events]

    async def read(self, after: str, limit: int, wait_s: float = 0.0) -> list[LoggedEvent]:
        seen = int(rules.check_log_id(after).partition("-")[0])
        if wait_s > 0 and seen >= self._last:
            try:
                async with asyncio.timeout(wait_s):  # not wait_for: before 3.12 it can swallow a cancellation
                    await self._grown.wait()
            except TimeoutError:
                return []
        known = min(max(0, seen - (self._last - len(self._entries))), len(self._entries))
        return list(islice(self._entries, known, known + limit))

    async def since(self, at_ms: int) -> str:
        """Take the events' own times for those of the store: there is one clock."""
        later = next((entry for entry in self._entries if entry.event.at_ms >= at_ms), None)
        return str(self._last if later is None else int(later.id) - 1)

    async def newest_id(self) -> str:
        return self._entries[-1].id if self._entries else "0"

    async def oldest_id(self) -> str:
        return self._entries[0].id if self._entries else "0"
