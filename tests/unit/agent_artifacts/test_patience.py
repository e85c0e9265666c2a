import pytest

from muster.agent.artifacts.patience import Patience, parse_retry_after
from muster.agent.backoff import Backoff
from tests.chance import FixedChance

PATIENCE = Patience(attempts_max=4, backoff=Backoff(base_s=1.0, max_s=3.0, jitter=0.0), told_s_max=100.0)


def test_the_wait_grows_and_ends() -> None:
    waits = [PATIENCE.delay_s(failures, None, FixedChance()) for failures in range(1, 5)]
    assert waits == [1.0, 2.0, 3.0, None]


def test_what_the_server_asks_for_is_honoured_and_never_cut_short() -> None:
    assert PATIENCE.delay_s(1, 60.0, FixedChance(0.0)) == 60.0
    assert PATIENCE.delay_s(1, 60.0, FixedChance(0.99)) == pytest.approx(65.94)
    assert PATIENCE.delay_s(2, 0.0, FixedChance(0.0)) == 2.0


def test_who_asks_for_too_long_is_not_waited_for() -> None:
    assert PATIENCE.delay_s(1, 100.0, FixedChance()) == 100.0
    assert PATIENCE.delay_s(1, 101.0, FixedChance()) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("soon", None),
        ("-1", None),
        ("99999999999999", 999999999.0),
        ("Thu, 01 Jan 1970 00:17:10 GMT", 30.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:17:10", 30.0),
    ],
)
def test_seconds_and_dates_are_read(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, now_ms=1_000_000) == seconds
