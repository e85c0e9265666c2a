"""How the gateway fared lately: a point every few seconds, for charts and for figures of now. Pure: times come in."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct

EVERY_S = 5.0
_POINTS = 180  # 15 minutes


class Totals(Struct, frozen=True, kw_only=True):
    """What was counted since the start; `first_byte` are counts of answers by bucket."""

    requests: int
    errors: int
    in_flight: int
    first_byte: tuple[int, ...]


class Point(Struct, frozen=True, kw_only=True):
    """A few seconds that ended at `at_ms`. The times to the first byte are null when nothing was answered."""

    at_ms: int
    requests_per_s: float
    errors_per_s: float
    in_flight: int
    first_byte_p50_s: float | None
    first_byte_p95_s: float | None


class Course:
    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._last: tuple[float, Totals] | None = None

    @property
    def points(self) -> list[Point]:
        return list(self._points)

    def is_due(self, now_s: float) -> bool:
        return self._last is None or now_s - self._last[0] >= EVERY_S

    def note(self, now_s: float, now_ms: int, totals: Totals) -> None:
        """Add a point about the time since the last note; `now_s` is a clock that nobody sets."""
        before, self._last = self._last, (now_s, totals)
        if before is None:
            return
        took_s = now_s - before[0]
        known = before[1].first_byte or (0,) * len(totals.first_byte)
        answered = [now - then for now, then in zip(totals.first_byte, known, strict=True)]
        self._points.append(
            Point(
                at_ms=now_ms,
                requests_per_s=round((totals.requests - before[1].requests) / took_s, 2),
                errors_per_s=round((totals.errors - before[1].errors) / took_s, 2),
                in_flight=totals.in_flight,
                first_byte_p50_s=quantile(self._bounds_s, answered, 0.5),
                first_byte_p95_s=quantile(self._bounds_s, answered, 0.95),
            )
        )


def quantile(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return about where that share of the counted lies, straight between a bucket's bounds; None when none was.

    What lies above the last bound is said to lie at it.
    """
    below = list(accumulate(counts))
    if not below or not below[-1]:
        return None
    wanted = share * below[-1]
    bucket = bisect_left(below, wanted)
    if bucket >= len(bounds_s):
        return bounds_s[-1]
    low_s = bounds_s[bucket - 1] if bucket else 0.0
    inside = (wanted - (below[bucket] - counts[bucket])) / counts[bucket]
    return round(low_s + (bounds_s[bucket] - low_s) * inside, 4)
