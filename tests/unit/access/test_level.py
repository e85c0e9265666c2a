import pytest

from muster.access.level import Level


def test_all_of_it_goes_at_once_and_then_one_by_one() -> None:
    level = Level(4.0, per_s=4.0)

    assert [level.ask(10.0) for _ in range(4)] == [0.0] * 4
    assert level.ask(10.0) == pytest.approx(0.25)
    assert level.ask(10.25) == 0.0
    assert level.ask(10.25) > 0.0


def test_it_fills_up_to_its_limit_however_long_it_rests() -> None:
    level = Level(1.0, per_s=0.5)

    assert level.ask(0.0) == 0.0
    assert level.ask(0.5) == pytest.approx(1.5)
    assert level.ask(1000.0) == 0.0
    assert level.ask(1000.0) == pytest.approx(2.0)


def test_being_refused_costs_nothing() -> None:
    level = Level(1.0, per_s=1.0)
    level.ask(0.0)
    for _ in range(100):
        assert level.ask(0.5) == pytest.approx(0.5)
    assert level.ask(1.0) == 0.0


def test_a_clock_that_is_set_back_fills_nothing() -> None:
    level = Level(2.0, per_s=1.0)
    level.take(2, 10.0)

    assert level.left(5.0) == 0.0
    assert level.left(11.0) == 1.0


def test_what_others_know_to_be_missing_counts_unless_as_much_is_missing_here() -> None:
    level = Level(10, per_s=1.0)
    level.take(4, 0.0)
    level.lower(3, 0.0)
    assert level.missing(0.0) == 4
    level.lower(12, 0.0)
    assert level.left(0.0) == -2
    assert level.wait_s(1.0, 0.0) == 3.0


def test_another_limit_keeps_what_was_taken() -> None:
    level = Level(10, per_s=1.0)
    level.take(4, 0.0)
    level.resize(5, 0.5)

    assert (level.left(0.0), level.left(2.0)) == (1, 2)
