"""What the gateway did: counts, times and bytes, cheap enough to keep for every request."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from msgspec import Struct, field

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CLIENT_GONE = 499  # the caller left before the answer was complete; the number that nginx uses
_FIRST_ERROR = 400


class _Times:
    """How long the answers of one model took to their first byte and to their end: counts by bucket, and sums."""

    __slots__ = ("duration", "duration_s", "first_byte", "first_byte_s")

    def __init__(self) -> None:
        self.first_byte = [0] * (len(_BUCKETS_S) + 1)
        self.first_byte_s = 0.0
        self.duration = [0] * (len(_BUCKETS_S) + 1)
        self.duration_s = 0.0


class Finished(Struct, frozen=True):
    """One request that has ended, however it did."""

    path: str
    status: int
    model: str = ""
    worker: str = ""
    attempts: int = 0
    first_byte_s: float | None = None
    duration_s: float = 0.0
    bytes_sent: int = 0
    error: str | None = None  # the code, when it failed
    correlation_id: bytes = b""


class GatewayStats(Struct, frozen=True, kw_only=True):
    in_flight: int
    requests_total: int
    errors_total: int
    upstream_failures_total: int
    bytes_sent_total: int
    in_flight_by_worker: dict[str, int]


class Sample(Struct, frozen=True):
    suffix: str  # "", "_bucket", "_sum" or "_count"
    labels: dict[str, str]
    value: float


class Metric(Struct, frozen=True, kw_only=True):
    """A family of Prometheus samples, without the format they are written in."""

    name: str
    help: str
    kind: str
    samples: list[Sample] = field(default_factory=list)


class Usage:
    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.times: dict[str, _Times] = {}  # by model
        self.upstream_failures: dict[tuple[str, str], int] = {}
        self.bytes_sent = 0

    def finished(self, record: Finished) -> None:
        key = (record.path, record.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.bytes_sent += record.bytes_sent
        if record.first_byte_s is None:
            return
        # Only a model that was served gets a series of its own: invented names must not fill the memory.
        times = self.times.get(record.model)
        if times is None:
            times = self.times[record.model] = _Times()
        times.first_byte[bisect_left(_BUCKETS_S, record.first_byte_s)] += 1
        times.first_byte_s += record.first_byte_s
        times.duration[bisect_left(_BUCKETS_S, record.duration_s)] += 1
        times.duration_s += record.duration_s

    def upstream_failed(self, worker: str, reason: str) -> None:
        key = (worker, reason)
        self.upstream_failures[key] = self.upstream_failures.get(key, 0) + 1

    def stats(self, in_flight: dict[str, int]) -> GatewayStats:
        return GatewayStats(
            in_flight=sum(in_flight.values()),
            requests_total=sum(self.requests.values()),
            errors_total=sum(
                n for (_, status), n in self.requests.items() if status >= _FIRST_ERROR and status != CLIENT_GONE
            ),
            upstream_failures_total=sum(self.upstream_failures.values()),
            bytes_sent_total=self.bytes_sent,
            in_flight_by_worker=dict(in_flight),
        )

    def metrics(self, in_flight: dict[str, int]) -> Iterator[Metric]:
        yield Metric(
            name="muster_gateway_requests_total",
            help="Requests to the model paths, by path and status (499: the caller left).",
            kind="counter",
            samples=[Sample("", {"path": p, "status": str(s)}, n) for (p, s), n in self.requests.items()],
        )
        yield Metric(
            name="muster_gateway_in_flight",
            help="Requests being answered, by worker.",
            kind="gauge",
            samples=[Sample("", {"worker": worker}, n) for worker, n in in_flight.items()],
        )
        yield Metric(
            name="muster_gateway_upstream_failures_total",
            help="Attempts on a worker that failed, by worker and reason.",
            kind="counter",
            samples=[Sample("", {"worker": w, "reason": r}, n) for (w, r), n in self.upstream_failures.items()],
        )
        yield Metric(
            name="muster_gateway_sent_bytes_total",
            help="Bytes of answers sent to callers.",
            kind="counter",
            samples=[Sample("", {}, self.bytes_sent)],
        )
        first_byte = {model: (times.first_byte, times.first_byte_s) for model, times in self.times.items()}
        duration = {model: (times.duration, times.duration_s) for model, times in self.times.items()}
        yield _histograms("muster_gateway_first_byte_seconds", "Time to the first byte, by model.", first_byte)
        yield _histograms("muster_gateway_duration_seconds", "Time to the end of the answer, by model.", duration)


def _histograms(name: str, text: str, by_model: dict[str, tuple[list[int], float]]) -> Metric:
    """Render buckets as Prometheus has them: each counts all that is not above its bound."""
    metric = Metric(name=name, help=text, kind="histogram")
    bounds = [*map(repr, _BUCKETS_S), "+Inf"]
    for model, (counts, total_s) in by_model.items():
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            metric.samples.append(Sample("_bucket", {"model": model, "le": bound}, count))
        metric.samples.append(Sample("_sum", {"model": model}, total_s))
        metric.samples.append(Sample("_count", {"model": model}, sum(counts)))
    return metric
