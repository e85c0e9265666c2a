"""How often one token may ask."""

_ROUNDING_S = 1e-9


class Bucket:
    """Lets `rate_per_s` requests through on average, one second's worth of them (at least one) at once.

    It keeps a single time: until when all that was let through is paid for.
    """

    __slots__ = ("_gap_s", "_paid_until_s", "_span_s", "rate_per_s")

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self._gap_s = 1.0 / rate_per_s
        self._span_s = max(1.0, self._gap_s)
        self._paid_until_s = float("-inf")

    def take(self, now_s: float) -> float:
        """Return 0 when this request may go, else in how many seconds one may."""
        until_s = max(self._paid_until_s, now_s) + self._gap_s
        early_s = until_s - now_s - self._span_s
        if early_s > _ROUNDING_S:
            return early_s
        self._paid_until_s = until_s
        return 0.0
