"""Virtual time: a clock that moves only from one happening to the next."""

from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[], None]

START_MS = 1_700_000_000_000


class Timeline:
    """A Clock, and the order of everything: what falls on one time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self._now_ms = START_MS
        self._waiting: list[tuple[int, int, Action]] = []
        self._asked = 0
        self.happened = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return (self._now_ms - START_MS) / 1000

    def after(self, delay_ms: int, action: Action) -> None:
        self._asked += 1
        heappush(self._waiting, (self._now_ms + delay_ms, self._asked, action))

    def run(self, until_ms: int) -> None:
        """Let everything up to and including `until_ms` happen."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= until_ms:
            self._now_ms, _, action = heappop(waiting)
            self.happened += 1
            action()
        self._now_ms = until_ms
