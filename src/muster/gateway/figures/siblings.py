"""Gateways that share a port, each a process: what each of them tells, and all of it together.

One of them, the first, answers whoever looks. What a process has counted stays counted when it has ended.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field

from muster.gateway.admission.view import LineView, WaitingCaller
from muster.gateway.figures.counts import Counts, add_up
from muster.gateway.figures.decisions import RECENT, RecentRequest
from muster.gateway.figures.streams import StreamsView
from muster.gateway.figures.streams import added_up as streams_added_up
from muster.gateway.trust.patience import Waits
from muster.gateway.trust.quarantine import Quarantined
from muster.metrics import Metric, Sample

_CALLERS_SHOWN = 20


class Told(Struct, kw_only=True):
    """What one gateway has counted and what it does now. `samples` are those of counters, by family."""

    counts: Counts
    samples: dict[str, list[Sample]]
    in_flight: dict[str, int] = field(default_factory=dict)
    using: list[tuple[str, str]] = field(default_factory=list)
    lines: list[LineView] = field(default_factory=list)
    requests: list[RecentRequest] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    waits: list[Waits] = field(default_factory=list)
    streams: StreamsView = StreamsView()


class Siblings:
    """What the other processes told last, by number."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}
        self._ended = Told(counts=Counts(), samples={})

    def hear(self, number: int, told: Told) -> None:
        self._told[number] = told

    def ended(self, number: int) -> None:
        """Keep what a process has counted, and forget what it did."""
        told = self._told.pop(number, None)
        if told is not None:
            self._ended.counts.add(told.counts)
            self._ended.samples = {
                name: _added(self._ended.samples.get(name, ()), told.samples.get(name, ()))
                for name in {*self._ended.samples, *told.samples}
            }
            self._ended.streams = streams_added_up([self._ended.streams, told.streams.of_an_ended])

    def counts(self) -> Iterable[Counts]:
        if not self._told and not self._ended.counts.requests:
            return ()
        return (self._ended.counts, *(told.counts for told in self._told.values()))

    def with_samples(self, own: Iterable[Metric]) -> Iterator[Metric]:
        """Add what the others have of each family."""
        for metric in own:
            samples = metric.samples
            for told in (self._ended, *self._told.values()):
                if more := told.samples.get(metric.family.name):
                    samples = _added(samples, more)
            yield Metric(metric.family, samples)

    def in_flight(self, own: Mapping[str, int]) -> dict[str, int]:
        total = dict(own)
        for told in self._told.values():
            add_up(total, told.in_flight)
        return total

    def streams(self, own: StreamsView) -> StreamsView:
        return streams_added_up([own, self._ended.streams, *(told.streams for told in self._told.values())])

    def using(self) -> Iterator[tuple[str, str]]:
        for told in self._told.values():
            yield from told.using

    def lines(self, own: list[LineView]) -> list[LineView]:
        by_model: dict[str, LineView] = {}
        for line in (*own, *(line for told in self._told.values() for line in told.lines)):
            known = by_model.get(line.model)
            by_model[line.model] = line if known is None else _one_line(known, line)
        return [line for _, line in sorted(by_model.items())]

    def requests(self, own: list[RecentRequest]) -> list[RecentRequest]:
        """Return the newest of all, the newest first."""
        everybodys = [*own, *(request for told in self._told.values() for request in told.requests)]
        return sorted(everybodys, key=lambda request: -request.at_ms)[:RECENT]

    def quarantined(self, own: list[Quarantined]) -> list[Quarantined]:
        """Return each worker once: who is set aside by one is set aside by all."""
        by_case = {(case.worker, case.model or ""): case for told in self._told.values() for case in told.quarantined}
        by_case |= {(case.worker, case.model or ""): case for case in own}
        return [case for _, case in sorted(by_case.items())]

    def waits(self, own: list[Waits]) -> list[Waits]:
        """Return of each worker and model what the one has learned that saw most answers."""
        by_key: dict[tuple[str, str], Waits] = {}
        for wait in (*own, *(wait for told in self._told.values() for wait in told.waits)):
            known = by_key.get((wait.worker, wait.model))
            if known is None or known.answers < wait.answers:
                by_key[wait.worker, wait.model] = wait
        return [wait for _, wait in sorted(by_key.items())]


def _added(samples: Iterable[Sample], more: Iterable[Sample]) -> list[Sample]:
    """Add up what has the same name and labels; the buckets of a histogram stay in their order."""
    total: dict[tuple[str, tuple[str, ...]], float] = {}
    for suffix, labels, value in (*samples, *more):
        total[suffix, labels] = total.get((suffix, labels), 0) + value
    return [(suffix, labels, value) for (suffix, labels), value in total.items()]


def _one_line(one: LineView, other: LineView) -> LineView:
    callers = Counter({caller.name: caller.requests for caller in one.callers})
    callers.update({caller.name: caller.requests for caller in other.callers})
    weights = {caller.name: caller.weight for caller in (*other.callers, *one.callers)}
    known = [line.answer_s for line in (one, other) if line.answer_s is not None]
    return LineView(
        model=one.model,
        waiting=one.waiting + other.waiting,
        oldest_s=max(one.oldest_s, other.oldest_s),
        answer_s=sum(known) / len(known) if known else None,
        callers=[
            WaitingCaller(name=name, requests=count, weight=weights[name])
            for name, count in callers.most_common(_CALLERS_SHOWN)
        ],
    )
