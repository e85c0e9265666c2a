from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from muster.access.account import Account
from muster.access.allowance import Allowance
from muster.access.takings import Takings
from muster.domain.usage import Spent, Use
from muster.errors import QuotaExceeded, RateLimited
from muster.wire.gateways import Taken

NOON_MS = round(datetime(2024, 2, 28, 12, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000


def account(**limits: int) -> Account:
    made = Account("t")
    made.change(replace(Allowance(), **limits))
    return made


def use(tokens: int) -> Use:
    return Use(token="t", model="m", prompt_tokens=1, completion_tokens=tokens - 1)


# --- per minute -------------------------------------------------------------------------------------------------------


def test_without_limits_everything_is_let_in_and_counted() -> None:
    free = account()
    free.admit(NOON_MS, 0.0)
    free.take(use(10), NOON_MS, 0.0)

    assert (free.tokens_today(NOON_MS), free.requests_left(0.0), free.tokens_left(0.0)) == (10, None, None)


def test_requests_of_a_minute_come_back_steadily() -> None:
    limited = account(requests_per_min=2)
    limited.admit(NOON_MS, 0.0)
    limited.admit(NOON_MS, 0.0)

    with pytest.raises(RateLimited, match="2 requests per minute") as caught:
        limited.admit(NOON_MS, 0.0)
    assert caught.value.retry_after_s == pytest.approx(30.0)
    limited.admit(NOON_MS, 30.0)
    left = limited.requests_left(30.0)
    assert left is not None
    assert (left.limit, left.left) == (2, 0)
    assert left.full_in_s == pytest.approx(60.0)


def test_tokens_are_taken_when_the_answer_has_ended_and_may_be_overdrawn_by_it() -> None:
    limited = account(tokens_per_min=60)
    limited.admit(NOON_MS, 0.0)
    limited.take(use(100), NOON_MS, 0.0)

    with pytest.raises(RateLimited, match="60 tokens per minute") as caught:
        limited.admit(NOON_MS, 0.0)
    assert caught.value.retry_after_s == pytest.approx(41.0)
    left = limited.tokens_left(0.0)
    assert left is not None
    assert left.left == 0
    limited.admit(NOON_MS, 41.0)


def test_a_changed_limit_keeps_what_was_taken() -> None:
    limited = account(requests_per_min=3)
    limited.admit(NOON_MS, 0.0)
    limited.change(Allowance(requests_per_min=2, tokens_per_min=5))

    left, tokens = limited.requests_left(0.0), limited.tokens_left(0.0)
    assert left is not None
    assert tokens is not None
    assert (left.left, tokens.left) == (1, 5)
    limited.change(Allowance())
    assert limited.requests_left(0.0) is None


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_day_s_budget_is_back_with_the_next_day() -> None:
    limited = account(tokens_per_day=10)
    limited.take(use(10), NOON_MS, 0.0)

    with pytest.raises(QuotaExceeded, match="10 of its 10 tokens for this day") as caught:
        limited.admit(NOON_MS, 0.0)
    assert caught.value.retry_after_s == pytest.approx(12 * 3600)
    limited.admit(NOON_MS + DAY_MS, 0.0)
    assert limited.tokens_this_month(NOON_MS + DAY_MS) == 10


def test_a_month_s_budget_is_back_with_the_next_month() -> None:
    limited = account(tokens_per_month=10, tokens_per_day=100)
    limited.take(use(11), NOON_MS, 0.0)

    with pytest.raises(QuotaExceeded, match="11 of its 10 tokens for this month") as caught:
        limited.admit(NOON_MS, 0.0)
    assert caught.value.retry_after_s == pytest.approx(1.5 * 86_400)  # 2024 has a 29th of February
    limited.admit(NOON_MS + 2 * DAY_MS, 0.0)


def test_a_clock_that_is_set_back_gives_no_new_budget() -> None:
    limited = account(tokens_per_day=10)
    limited.take(use(10), NOON_MS, 0.0)

    with pytest.raises(QuotaExceeded):
        limited.admit(NOON_MS - DAY_MS, 0.0)


# --- with other gateways ----------------------------------------------------------------------------------------------


def test_what_is_told_counts_until_it_is_heard_and_once_after() -> None:
    ours = account(tokens_per_day=100, requests_per_min=10)
    assert ours.tell() is None
    ours.hear(Spent(), NOON_MS)
    ours.admit(NOON_MS, 0.0)
    ours.take(use(7), NOON_MS, 0.0)
    told = ours.tell()

    assert told == Spent(tokens_today=7, tokens_this_month=7)
    assert ours.tokens_today(NOON_MS) == 7
    ours.take(use(2), NOON_MS, 0.0)
    assert ours.tell() is None  # the first has not arrived
    assert ours.tokens_today(NOON_MS) == 9
    ours.hear(Spent(tokens_today=7, tokens_this_month=7), NOON_MS)
    assert ours.tokens_today(NOON_MS) == 9
    assert ours.tell() == Spent(tokens_today=2, tokens_this_month=2)


def test_what_is_taken_of_limits_is_noted_once_for_all_who_are_told() -> None:
    takings, noted = Takings(), list[None]()
    takings.on_noted(lambda: noted.append(None))
    limited, free = Account("t", takings), Account("free", takings)
    limited.change(Allowance(requests_per_min=10, tokens_per_min=60), rate_per_s=5.0)
    for one in (limited, free):
        assert one.call(0.0) == 0.0
        assert one.call(0.0) == 0.0
        one.admit(NOON_MS, 0.0)
        one.take(use(7), NOON_MS, 0.0)

    assert takings.tell() == {"t": Taken(calls=2, requests=1, tokens=7)}
    assert takings.tell() == {}
    assert len(noted) == 1, "more of the same is told with it"


def test_what_others_take_is_missing_in_our_minute_and_may_overdraw_it() -> None:
    ours = account(requests_per_min=4, tokens_per_min=60)
    ours.admit(NOON_MS, 0.0)
    ours.took_elsewhere(Taken(calls=2, requests=2, tokens=70), 0.0)

    requests = ours.requests_left(0.0)
    assert requests is not None
    assert requests.left == 1
    with pytest.raises(RateLimited, match="tokens per minute") as caught:
        ours.admit(NOON_MS, 0.0)
    assert caught.value.retry_after_s == pytest.approx(11.0)


def test_who_comes_anew_has_what_the_others_have_left_and_no_less() -> None:
    there, here = account(requests_per_min=4), account(requests_per_min=4, tokens_per_min=60)
    assert there.missing(0.0) is None
    for _ in range(3):
        there.admit(NOON_MS, 0.0)
    here.admit(NOON_MS, 0.0)  # they have heard of this: it is in what they say
    missing = there.missing(0.0)

    assert missing == Taken(requests=3)
    for _ in range(2):
        here.misses(missing, 0.0)
    left = here.requests_left(0.0)
    assert left is not None
    assert left.left == 1


def test_a_restarted_control_plane_hears_what_was_spent_before() -> None:
    again = account(tokens_per_month=10)
    again.hear(Spent(tokens_this_month=10), NOON_MS)

    with pytest.raises(QuotaExceeded):
        again.admit(NOON_MS, 0.0)
