"""How long to wait before trying again."""

from msgspec import Struct

from muster.clock import Rng


class Backoff(Struct, frozen=True, kw_only=True):
    """Wait `base_s`, then twice as long each time, `max_s` at most; `jitter` is the share left to chance."""

    base_s: float = 1.0
    max_s: float = 30.0
    jitter: float = 0.25

    def delay_s(self, failures: int, rng: Rng) -> float:
        """Return the wait after the `failures`-th failure in a row, counted from 1."""
        doublings = min(failures - 1, 62)  # beyond that a float tells nothing more
        return min(self.max_s, self.base_s * 2.0**doublings) * (1 - self.jitter * rng.random())
