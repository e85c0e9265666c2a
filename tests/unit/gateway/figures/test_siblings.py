import msgspec

from muster.gateway.admission.view import LineView, WaitingCaller
from muster.gateway.figures.decisions import RECENT, RecentRequest
from muster.gateway.figures.siblings import Siblings, Told
from muster.gateway.figures.streams import StreamsView, metrics_of
from muster.gateway.figures.usage import Finished, Usage
from muster.gateway.trust.patience import Waits
from muster.gateway.trust.quarantine import Quarantined, Standing
from muster.metrics import GATEWAY_CONTINUED, GATEWAY_INTER_TOKEN


def line(model: str, waiting: int, oldest_s: float, answer_s: float | None, **callers: int) -> LineView:
    known = [WaitingCaller(name=name, requests=count, weight=1.0) for name, count in callers.items()]
    return LineView(model=model, waiting=waiting, oldest_s=oldest_s, answer_s=answer_s, callers=known)


def request(at_ms: int) -> RecentRequest:
    return RecentRequest(correlation_id=f"r{at_ms}", at_ms=at_ms, model="m", worker="w", status=200, waited_s=0.0)


def quarantined(worker: str, reason: str) -> Quarantined:
    return Quarantined(
        worker=worker,
        model=None,
        standing=Standing.OUT,
        reason=reason,
        since_ms=1,
        times=1,
        allowed=0,
        retry_in_s=1.0,
    )


def waits(worker: str, answers: int) -> Waits:
    return Waits(worker=worker, model="m", answers=answers, first_byte_s=1.0, silence_s=1.0, learned=True)


def told(usage: Usage, continued: int) -> Told:
    """Return what comes through the channel."""
    metrics = [*usage.own_metrics(), GATEWAY_CONTINUED.single(continued)]
    samples = {metric.family.name: list(metric.samples) for metric in metrics}
    sent = Told(
        counts=usage.own,
        samples=samples,
        in_flight={"a": 1, "b": 2},
        using=[("a", "m")],
        lines=[line("m", 2, 3.0, 4.0, alice=1, bob=1)],
        requests=[request(at_ms) for at_ms in range(RECENT, 0, -1)],
        quarantined=[quarantined("a", "theirs"), quarantined("b", "theirs")],
        waits=[waits("a", 9), waits("b", 1)],
        streams=StreamsView(
            running=2, unread=1, kept_total=5, kept_bytes_total=50, resumed_total=3, taken_over_total=1
        ),
    )
    return msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Told)


def used(*statuses: int) -> Usage:
    usage = Usage()
    for status in statuses:
        usage.finished(Finished("/p", status, "m", "w", 1, 0.02, 1.0, 100, None, 5))
    usage.upstream_failed("w", "lost")
    return usage


def test_what_processes_counted_is_one_sum_and_stays_when_one_has_ended() -> None:
    siblings = Siblings()
    usage = Usage(siblings.counts)
    assert list(siblings.counts()) == []
    siblings.hear(2, told(used(200, 500), 1))
    siblings.hear(3, told(used(200), 2))
    usage.finished(Finished("/p", 200, "m", "w", 1, 0.02, 1.0, 100, None, 5))

    def seen() -> tuple[int, int, int, int]:
        stats = usage.stats(siblings.in_flight({"a": 1}))
        return stats.requests_total, stats.errors_total, stats.upstream_failures_total, stats.bytes_sent_total

    assert seen() == (4, 1, 2, 400)
    (model,) = usage.view({}, [], []).models
    assert model.answers == 4
    assert siblings.in_flight({"a": 1}) == {"a": 3, "b": 4}
    assert list(siblings.using()) == [("a", "m")] * 2

    siblings.ended(3)
    siblings.ended(3)
    assert seen() == (4, 1, 2, 400)
    assert siblings.in_flight({}) == {"a": 1, "b": 2}
    siblings.ended(2)
    assert seen() == (4, 1, 2, 400)
    own = [*usage.own_metrics(), GATEWAY_CONTINUED.single(4)]
    metrics = {metric.family.name: list(metric.samples) for metric in siblings.with_samples(own)}
    assert metrics[GATEWAY_CONTINUED.name] == [("", (), 7)]
    parts = metrics[GATEWAY_INTER_TOKEN.name]
    assert [value for suffix, _, value in parts if suffix == "_count"] == [4]
    buckets = [value for suffix, _, value in parts if suffix == "_bucket"]
    assert buckets == sorted(buckets)
    assert usage.own.requests == {("/p", 200): 1}, "what is added up is nobody's own"


def test_what_processes_do_now_is_one_picture() -> None:
    siblings = Siblings()
    assert siblings.lines([line("m", 1, 1.0, None)]) == [line("m", 1, 1.0, None)]
    siblings.hear(2, told(Usage(), 0))

    assert siblings.lines([line("m", 1, 5.0, None, alice=2), line("a", 1, 1.0, 2.0)]) == [
        line("a", 1, 1.0, 2.0),
        line("m", 3, 5.0, 4.0, alice=3, bob=1),
    ]
    assert [one.at_ms for one in siblings.requests([request(100)])] == [100, *range(RECENT, 1, -1)]
    assert [(one.worker, one.reason) for one in siblings.quarantined([quarantined("a", "ours")])] == [
        ("a", "ours"),
        ("b", "theirs"),
    ]
    assert [(one.worker, one.answers) for one in siblings.waits([waits("a", 3), waits("b", 3)])] == [("a", 9), ("b", 3)]


def test_answers_that_are_kept_are_counted_over_all_and_only_their_totals_stay() -> None:
    siblings = Siblings()
    own = StreamsView(running=1, kept_total=1, kept_bytes_total=10)
    assert siblings.streams(own) == own
    siblings.hear(2, told(Usage(), 0))
    assert siblings.streams(own) == StreamsView(
        running=3, unread=1, kept_total=6, kept_bytes_total=60, resumed_total=3, taken_over_total=1
    )
    assert [list(metric.samples) for metric in metrics_of(siblings.streams(own))] == [
        [("", ("yes",), 2), ("", ("no",), 1)],
        *([("", (), value)] for value in (6, 60, 3, 1)),
    ]
    siblings.ended(2)
    assert siblings.streams(own) == StreamsView(
        running=1, unread=0, kept_total=6, kept_bytes_total=60, resumed_total=3, taken_over_total=1
    )
