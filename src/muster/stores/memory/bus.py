import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

_WAITING_MAX = 10_000  # a subscriber that does not read loses the oldest: nothing is kept for anybody


class MemoryBus:
    """A Bus."""

    def __init__(self) -> None:
        self._subscribers: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)

    def send(self, topic: str, data: bytes) -> None:
        for queue in self._subscribers.get(topic, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(data)

    async def publish(self, topic: str, data: bytes) -> None:
        self.send(topic, data)

    async def subscribe(self, topic: str, ready: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MAX)
        self._subscribers[topic].add(queue)
        try:
            if ready is not None:
                ready()
            while True:
                yield await queue.get()
        finally:
            self._subscribers[topic].discard(queue)
