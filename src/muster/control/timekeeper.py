"""Our own wall clock, watched: when somebody sets it, those who count with its times hear of that first."""

from collections.abc import Callable

from muster.clock import Clock

_STEP_MS_MIN = 50  # below it the clock is being slewed, or we were interrupted between two looks

ClockSet = Callable[[int], None]


class Timekeeper:
    """A Clock. Everybody in a process reads this one, so no new time is used before the jump was told."""

    def __init__(self, clock: Clock) -> None:
        # Both are asked several times for every request to a model: no layer between that is not needed.
        self.monotonic_s: Callable[[], float] = clock.monotonic_s
        self._wall_ms = clock.now_ms
        self._ahead_ms = self._wall_ms() - round(self.monotonic_s() * 1000)
        self._listeners: list[ClockSet] = []

    def on_set(self, listener: ClockSet) -> None:
        """Have `listener` told by how many ms wall time has moved on while no time passed."""
        self._listeners.append(listener)

    def now_ms(self) -> int:
        now_ms = self._wall_ms()
        ahead_ms = now_ms - round(self.monotonic_s() * 1000)
        by_ms, self._ahead_ms = ahead_ms - self._ahead_ms, ahead_ms
        if not -_STEP_MS_MIN < by_ms < _STEP_MS_MIN:
            for listener in self._listeners:
                listener(by_ms)
        return now_ms
