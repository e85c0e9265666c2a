"""How late a node is, measured by its own heartbeat interval."""

from enum import StrEnum

from msgspec import Struct


class Lateness(StrEnum):
    ON_TIME = "on_time"
    LATE = "late"  # takes no new work
    STALE = "stale"
    DEAD = "dead"


class Limits(Struct, frozen=True, kw_only=True):
    """How much silence means what, in intervals of the node; the fixed times, where set, hold for every node."""

    late_intervals: float = 3.0
    stale_intervals: float = 4.0
    dead_intervals: float = 10.0
    stale_after_s: float | None = None
    dead_after_s: float | None = None

    def late_after_ms(self, interval_s: float) -> int:
        return round(1000 * self.late_intervals * interval_s)

    def stale_after_ms(self, interval_s: float) -> int:
        fixed_s = self.stale_after_s
        return round(1000 * (self.stale_intervals * interval_s if fixed_s is None else fixed_s))

    def dead_after_ms(self, interval_s: float) -> int:
        fixed_s = self.dead_after_s
        return round(1000 * (self.dead_intervals * interval_s if fixed_s is None else fixed_s))


def lateness(silent_ms: int, interval_s: float, limits: Limits) -> Lateness:
    if silent_ms > limits.dead_after_ms(interval_s):
        return Lateness.DEAD
    if silent_ms > limits.stale_after_ms(interval_s):
        return Lateness.STALE
    if silent_ms > limits.late_after_ms(interval_s):
        return Lateness.LATE
    return Lateness.ON_TIME
