"""What a limit promises, whatever the times of the requests."""

from hypothesis import given
from hypothesis import strategies as st

from muster.access.account import Account
from muster.access.allowance import ANYTHING
from muster.access.takings import Takings

TELLING_S = 0.02

rates = st.floats(0.01, 10_000.0)
gaps_s = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=200)


def limited(rate_per_s: float, takings: Takings | None = None) -> Account:
    account = Account("t", takings)
    account.change(ANYTHING, rate_per_s)
    return account


@given(rates, gaps_s)
def test_no_span_of_time_lets_more_through_than_its_rate_and_one_burst(rate_per_s: float, gaps: list[float]) -> None:
    account, now_s, passed = limited(rate_per_s), 1000.0, []
    for gap_s in gaps:
        now_s += gap_s
        if account.call(now_s) == 0.0:
            passed.append(now_s)
    burst = max(1.0, rate_per_s)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span_s = passed[last] - passed[first]
            assert last - first + 1 <= rate_per_s * span_s + burst + 1e-3


@given(rates, gaps_s)
def test_whoever_waits_as_told_is_let_through(rate_per_s: float, gaps: list[float]) -> None:
    account, now_s = limited(rate_per_s), 1000.0
    for gap_s in gaps:
        now_s += gap_s
        wait_s = account.call(now_s)
        if wait_s:
            now_s += wait_s
            assert account.call(now_s) == 0.0


@given(rates)
def test_who_keeps_to_the_rate_never_waits(rate_per_s: float) -> None:
    account = limited(rate_per_s)
    assert all(account.call(number / rate_per_s) == 0.0 for number in range(100))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 0.2)), min_size=1, max_size=200), st.integers(1, 50))
def test_gateways_let_in_together_what_one_would_but_for_what_they_have_not_told_each_other_yet(
    asked: list[tuple[int, float]], rate_per_s: int
) -> None:
    takings = [Takings() for _ in range(4)]
    gateways = [limited(rate_per_s, told) for told in takings]
    now_s = told_s = 0.0
    let_in = 0
    for number, gap_s in asked:
        now_s += gap_s
        if now_s - told_s >= TELLING_S:
            told_s = now_s
            for teller, told in enumerate(takings):
                for taken in told.tell().values():
                    for other in {*range(4)} - {teller}:
                        gateways[other].took_elsewhere(taken, now_s)
        let_in += gateways[number].call(now_s) == 0.0
    assert let_in <= rate_per_s * now_s + 4 * rate_per_s + 1e-3
