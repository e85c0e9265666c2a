"""What the gateway did: counts, times and bytes, cheap enough to keep for every request."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from muster import metrics as m
from muster.domain.usage import Use
from muster.gateway.admission.view import LineView
from muster.gateway.figures.counts import Counts, Times, together
from muster.gateway.figures.course import Course, Point, Totals, quantile
from muster.gateway.figures.decisions import RecentRequest
from muster.gateway.figures.streams import StreamsView
from muster.gateway.trust.patience import Waits
from muster.gateway.trust.quarantine import Quarantined
from muster.metrics import Family, Histogram, Metric, histogram_samples

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BOUNDS = [*map(repr, _BUCKETS_S), "+Inf"]
_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
_MODELS_MAX = 10_000
_WORKERS_MAX = 10_000
_SHOWN_MAX = 100
CLIENT_GONE = 499  # the caller left before the answer was complete; the number that nginx uses
_FIRST_ERROR = 400


class Finished(Struct, frozen=True, gc=False):
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
    parts: int = 0  # in which a streamed answer came
    correlation_id: bytes = b""
    use: Use | None = None  # None where no engine answered


def models_used(finished: Iterable[Finished]) -> set[tuple[str, str]]:
    """Return workers, each with a model that was asked for there."""
    return {(one.worker, one.model) for one in finished if one.worker and one.model}


class GatewayStats(Struct, frozen=True, kw_only=True):
    in_flight: int
    requests_total: int
    errors_total: int
    upstream_failures_total: int
    bytes_sent_total: int
    in_flight_by_worker: dict[str, int]


class ModelStats(Struct, frozen=True, kw_only=True):
    """What was answered for one model since the start; times are as exact as the buckets they are counted in."""

    model: str
    answers: int
    first_byte_p50_s: float | None
    first_byte_p95_s: float | None
    duration_p50_s: float | None
    duration_p95_s: float | None


class WorkerFailures(Struct, frozen=True, kw_only=True):
    worker: str
    reason: str
    count: int


class GatewayView(Struct, frozen=True, kw_only=True):
    """What this gateway and those that share its port do and did.

    `recent` are points of the last 15 minutes, the newest last; `lines` are those who wait for a slot, `requests` the
    newest ones, the newest first.
    """

    stats: GatewayStats
    models: list[ModelStats]
    failures: list[WorkerFailures]
    recent: list[Point]
    lines: list[LineView]
    requests: list[RecentRequest]
    quarantined: list[Quarantined] = []
    waits: list[Waits] = []
    streams: StreamsView = StreamsView()


def _no_others() -> Iterable[Counts]:
    return ()


class Usage:
    """`own` is what this gateway counted; told are the sums with what `others` beside it have."""

    def __init__(self, others: Callable[[], Iterable[Counts]] = _no_others) -> None:
        self.own = Counts()
        self._others = others
        self.course = Course(_BUCKETS_S)
        self._inter_token = Histogram(_TOKEN_BUCKETS_S, _MODELS_MAX)

    def finished(self, *records: Finished) -> None:
        own = self.own
        for record in records:
            key = (record.path, record.status)
            own.requests[key] = own.requests.get(key, 0) + 1
            own.bytes_sent += record.bytes_sent
            first_byte_s, duration_s = record.first_byte_s, record.duration_s
            if first_byte_s is None:
                continue
            # Only a model that was served gets a series of its own: invented names must not fill the memory.
            times = own.times.get(record.model)
            if times is None:
                times = own.times[record.model] = Times([0] * (len(_BUCKETS_S) + 1), [0] * (len(_BUCKETS_S) + 1))
            times.first_byte[bisect_left(_BUCKETS_S, first_byte_s)] += 1
            times.first_byte_s += first_byte_s
            times.duration[bisect_left(_BUCKETS_S, duration_s)] += 1
            times.duration_s += duration_s
            if record.parts > 1:
                self._inter_token.observe((duration_s - first_byte_s) / (record.parts - 1), record.model)

    def upstream_failed(self, worker: str, reason: str) -> None:
        key = (worker, reason)
        failures = self.own.upstream_failures
        if key not in failures and len(failures) >= _WORKERS_MAX:
            key = (m.OTHER, reason)  # machines come and go for years
        failures[key] = failures.get(key, 0) + 1

    def _counts(self) -> Counts:
        others = list(self._others())
        return together([self.own, *others]) if others else self.own

    def stats(self, in_flight: dict[str, int]) -> GatewayStats:
        return _stats(self._counts(), in_flight)

    def sweep(self, now_s: float, now_ms: int, in_flight: dict[str, int]) -> None:
        if self.course.is_due(now_s):
            counts = self._counts()
            stats = _stats(counts, in_flight)
            by_model = [times.first_byte for times in counts.times.values()]
            totals = Totals(
                requests=stats.requests_total,
                errors=stats.errors_total,
                in_flight=stats.in_flight,
                first_byte=tuple(map(sum, zip(*by_model, strict=True))),
            )
            self.course.note(now_s, now_ms, totals)

    def view(self, in_flight: dict[str, int], lines: list[LineView], requests: list[RecentRequest]) -> GatewayView:
        counts = self._counts()
        failures = (
            WorkerFailures(worker=labels[0], reason=labels[1], count=count)
            for labels, count in counts.upstream_failures.items()
        )
        return GatewayView(
            stats=_stats(counts, in_flight),
            models=[_model_stats(model, times) for model, times in sorted(counts.times.items())],
            failures=sorted(failures, key=lambda failure: -failure.count)[:_SHOWN_MAX],
            recent=self.course.points,
            lines=lines,
            requests=requests,
        )

    def metrics(self, in_flight: dict[str, int]) -> Iterator[Metric]:
        counts = self._counts()
        yield m.GATEWAY_REQUESTS.of({(path, str(status)): n for (path, status), n in counts.requests.items()})
        yield m.GATEWAY_IN_FLIGHT.of({(worker,): n for worker, n in in_flight.items()})
        yield m.GATEWAY_FAILURES.of(counts.upstream_failures)
        yield m.GATEWAY_SENT.single(counts.bytes_sent)
        first_byte = {model: (times.first_byte, times.first_byte_s) for model, times in counts.times.items()}
        duration = {model: (times.duration, times.duration_s) for model, times in counts.times.items()}
        yield _histograms(m.GATEWAY_FIRST_BYTE, first_byte)
        yield _histograms(m.GATEWAY_DURATION, duration)

    def own_metrics(self) -> Iterator[Metric]:
        """Tell what is counted in a histogram of its own."""
        yield self._inter_token.metric(m.GATEWAY_INTER_TOKEN)


def _stats(counts: Counts, in_flight: dict[str, int]) -> GatewayStats:
    return GatewayStats(
        in_flight=sum(in_flight.values()),
        requests_total=sum(counts.requests.values()),
        errors_total=sum(
            n for (_, status), n in counts.requests.items() if status >= _FIRST_ERROR and status != CLIENT_GONE
        ),
        upstream_failures_total=sum(counts.upstream_failures.values()),
        bytes_sent_total=counts.bytes_sent,
        in_flight_by_worker=dict(in_flight),
    )


def _model_stats(model: str, times: Times) -> ModelStats:
    return ModelStats(
        model=model,
        answers=sum(times.first_byte),
        first_byte_p50_s=quantile(_BUCKETS_S, times.first_byte, 0.5),
        first_byte_p95_s=quantile(_BUCKETS_S, times.first_byte, 0.95),
        duration_p50_s=quantile(_BUCKETS_S, times.duration, 0.5),
        duration_p95_s=quantile(_BUCKETS_S, times.duration, 0.95),
    )


def _histograms(family: Family, by_model: dict[str, tuple[list[int], float]]) -> Metric:
    samples = (
        sample
        for model, (counts, total_s) in by_model.items()
        for sample in histogram_samples(_BOUNDS, (model,), counts, total_s)
    )
    return Metric(family, list(samples))
