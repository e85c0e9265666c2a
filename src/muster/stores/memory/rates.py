from collections import Counter

from muster.stores import rules

_MINUTE_MS = 60_000
_COUNTS_MAX = 1000


class Rates:
    """How many jobs were submitted, completed and failed, by service and minute."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, str, str]] = Counter()

    def count(self, service: str, what: str, now_ms: int) -> None:
        minute = now_ms // _MINUTE_MS
        self._counts[minute, service, what] += 1
        if len(self._counts) > _COUNTS_MAX:
            kept = {key: n for key, n in self._counts.items() if key[0] > minute - rules.RATE_MINUTES}
            self._counts = Counter(kept)

    def per_min(self, service: str, what: str, now_ms: int) -> float:
        """Return the rate over the last minutes, of which the current one has just begun."""
        minute = now_ms // _MINUTE_MS
        first = minute - rules.RATE_MINUTES + 1
        jobs = sum(self._counts[at, service, what] for at in range(first, minute + 1))
        return jobs / ((rules.RATE_MINUTES - 1) + (now_ms % _MINUTE_MS + 1) / _MINUTE_MS)
