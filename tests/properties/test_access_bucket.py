"""What a token bucket promises, whatever the times of the requests."""

from hypothesis import given
from hypothesis import strategies as st

from muster.access.bucket import Bucket

rates = st.floats(0.01, 10_000.0)
gaps_s = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=200)


@given(rates, gaps_s)
def test_no_span_of_time_lets_more_through_than_its_rate_and_one_burst(rate_per_s: float, gaps: list[float]) -> None:
    bucket, now_s, passed = Bucket(rate_per_s), 1000.0, []
    for gap_s in gaps:
        now_s += gap_s
        if bucket.take(now_s) == 0.0:
            passed.append(now_s)
    burst = max(1.0, rate_per_s)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span_s = passed[last] - passed[first]
            assert last - first + 1 <= rate_per_s * span_s + burst + 1e-3


@given(rates, gaps_s)
def test_whoever_waits_as_told_is_let_through(rate_per_s: float, gaps: list[float]) -> None:
    bucket, now_s = Bucket(rate_per_s), 1000.0
    for gap_s in gaps:
        now_s += gap_s
        wait_s = bucket.take(now_s)
        if wait_s:
            now_s += wait_s
            assert bucket.take(now_s) == 0.0


@given(rates)
def test_who_keeps_to_the_rate_never_waits(rate_per_s: float) -> None:
    bucket = Bucket(rate_per_s)
    assert all(bucket.take(number / rate_per_s) == 0.0 for number in range(100))
