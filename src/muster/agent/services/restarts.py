"""Whether and when a service that ended is started again."""

from muster.agent.backoff import Backoff
from muster.clock import Rng

_LONG_RUN_S = 60.0  # after that it was a good start, and the count begins anew


class Restarts:
    def __init__(self, limit: int, backoff: Backoff, rng: Rng) -> None:
        self._limit = limit
        self._backoff = backoff
        self._rng = rng
        self._in_a_row = 0
        self.total = 0

    def next_delay_s(self, healthy_s: float) -> float | None:
        """Return the wait before the next start, after it was healthy for so long; None: it is given up."""
        if healthy_s >= _LONG_RUN_S:
            self._in_a_row = 0
        if self._in_a_row >= self._limit:
            return None
        self._in_a_row += 1
        self.total += 1
        return self._backoff.delay_s(self._in_a_row, self._rng)
