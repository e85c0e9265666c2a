"""Time and chance as arguments: what pure rules and shells ask for, and the simulator replaces."""

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall time in milliseconds since the epoch: for records and for people."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for waits and durations inside one process."""
        ...


class Rng(Protocol):
    def random(self) -> float:
        """Return a float in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int: ...
