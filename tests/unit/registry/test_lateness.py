import pytest

from muster.registry.lateness import Lateness, Limits, lateness


@pytest.mark.parametrize(
    ("silent_s", "expected"),
    [
        (-5, Lateness.ON_TIME),
        (90, Lateness.ON_TIME),
        (90.001, Lateness.LATE),
        (120, Lateness.LATE),
        (120.001, Lateness.STALE),
        (300, Lateness.STALE),
        (300.001, Lateness.DEAD),
    ],
)
def test_lateness_counts_the_nodes_own_intervals(silent_s: float, expected: Lateness) -> None:
    assert lateness(round(silent_s * 1000), 30.0, Limits()) is expected


def test_a_shorter_interval_is_late_sooner() -> None:
    assert lateness(11_000, 1.0, Limits()) is Lateness.DEAD
    assert lateness(11_000, 30.0, Limits()) is Lateness.ON_TIME


def test_fixed_times_win_over_intervals() -> None:
    limits = Limits(stale_after_s=5.0, dead_after_s=20.0)
    assert lateness(5_001, 30.0, limits) is Lateness.STALE
    assert lateness(20_001, 30.0, limits) is Lateness.DEAD
    assert lateness(5_000, 1.0, limits) is Lateness.LATE
