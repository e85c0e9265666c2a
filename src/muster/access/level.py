"""One limit of one token: so much at once, and as fast as it fills again."""

_ROUNDING_S = 1e-9


class Level:
    """It is full at first and fills steadily. What others take of it meanwhile may make it negative."""

    __slots__ = ("_at_s", "_left", "limit", "per_s")

    def __init__(self, limit: float, per_s: float) -> None:
        self.limit = limit
        self.per_s = per_s
        self._left = limit
        self._at_s = float("-inf")

    def left(self, now_s: float) -> float:
        if now_s > self._at_s:
            left = self._left + (now_s - self._at_s) * self.per_s
            self._left = min(self.limit, left)
            self._at_s = now_s
        return self._left

    def missing(self, now_s: float) -> float:
        """Return how much was taken and has not come back."""
        return self.limit - self.left(now_s)

    def wait_s(self, wanted: float, now_s: float) -> float:
        """Return in how many seconds so much is left; 0: it is."""
        wait_s = (wanted - self.left(now_s)) / self.per_s
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def ask(self, now_s: float) -> float:
        """Take one and return 0; if there is none, return in how many seconds there is."""
        if wait_s := self.wait_s(1.0, now_s):
            return wait_s
        self._left -= 1.0
        return 0.0

    def take(self, count: float, now_s: float) -> None:
        self._left = self.left(now_s) - count

    def lower(self, missing: float, now_s: float) -> None:
        """Have at least so much missing."""
        self._left = min(self.left(now_s), self.limit - missing)

    def resize(self, limit: float, per_s: float) -> None:
        """Change the limit; what was taken is taken."""
        self._left += limit - self.limit
        self.limit = limit
        self.per_s = per_s
