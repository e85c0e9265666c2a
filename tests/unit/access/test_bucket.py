import pytest

from muster.access.bucket import Bucket


def test_a_seconds_worth_goes_at_once_and_then_one_by_one() -> None:
    bucket = Bucket(4.0)

    assert [bucket.take(10.0) for _ in range(4)] == [0.0] * 4
    assert bucket.take(10.0) == pytest.approx(0.25)
    assert bucket.take(10.25) == 0.0
    assert bucket.take(10.25) > 0.0


def test_below_one_per_second_the_first_goes_and_the_next_waits_its_whole_time() -> None:
    bucket = Bucket(0.5)

    assert bucket.take(0.0) == 0.0
    assert bucket.take(0.5) == pytest.approx(1.5)
    assert bucket.take(2.0) == 0.0


def test_being_refused_costs_nothing() -> None:
    bucket = Bucket(1.0)
    bucket.take(0.0)
    for _ in range(100):
        assert bucket.take(0.5) == pytest.approx(0.5)
    assert bucket.take(1.0) == 0.0
