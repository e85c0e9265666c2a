"""Who waits for work, by capability class, and who is woken when some arrives.

One waiter is woken per wake-up. When it found work there may be more, so it passes the wake-up on; the first that
finds none has told the store again that its class is idle. So the cost follows the work, not the number of waiters.
"""

import asyncio
from collections import defaultdict, deque

from muster.ids import SessionId


class Wakeups:
    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._of_session: defaultdict[SessionId, set[asyncio.Future[None]]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def register(self, class_id: str, session_id: SessionId) -> asyncio.Future[None]:
        """Register before looking for work, so that no wake-up falls between the look and the wait."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[class_id].append(future)
        self._of_session[session_id].add(future)
        return future

    def forget(self, class_id: str, session_id: SessionId, future: asyncio.Future[None]) -> None:
        of_session = self._of_session.get(session_id, set())
        of_session.discard(future)
        if not of_session:
            self._of_session.pop(session_id, None)
        waiting = self._waiting.get(class_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[class_id]

    def wake(self, class_id: str) -> None:
        waiting = self._waiting.get(class_id)
        while waiting:
            future = waiting.popleft()
            if not waiting:
                del self._waiting[class_id]
            if not future.done():
                future.set_result(None)
                return
            waiting = self._waiting.get(class_id)

    def wake_session(self, session_id: SessionId) -> None:
        """Have a worker look anew: what it can do has changed while it waits."""
        for future in self._of_session.get(session_id, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """After a gap in the bus: everybody looks for himself."""
        for class_id in list(self._waiting):
            while class_id in self._waiting:
                self.wake(class_id)
