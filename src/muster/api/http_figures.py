"""What the API was asked: counts by route, as it is written and not as it was filled in."""

from collections import Counter
from collections.abc import Iterator

from muster.metrics import HTTP_DURATION, HTTP_REQUESTS, OTHER, Histogram, Metric

_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)
_ROUTES_MAX = 1_000  # far more than there are


class HttpFigures:
    def __init__(self) -> None:
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._duration = Histogram(_BOUNDS_S, _ROUTES_MAX)

    def answered(self, method: str, route: str | None, status: int, took_s: float) -> None:
        """Note an answer; without a route there was none for it."""
        route = route or OTHER
        self._requests[method, route, str(status)] += 1
        self._duration.observe(took_s, route)

    def metrics(self) -> Iterator[Metric]:
        yield HTTP_REQUESTS.of(self._requests)
        yield self._duration.metric(HTTP_DURATION)
