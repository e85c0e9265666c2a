from muster.agent.artifacts.door import Pace
from tests.clocks import ManualClock


def test_without_a_limit_nothing_is_slowed() -> None:
    pace = Pace(0, ManualClock())
    assert [pace.pause_s(10**9) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_all_who_take_share_one_pace_and_rest_is_not_saved_up() -> None:
    clock = ManualClock()
    pace = Pace(1000, clock)
    assert [pace.pause_s(500) for _ in range(3)] == [0.5, 1.0, 1.5]
    clock.advance(1.0)
    assert pace.pause_s(500) == 1.0
    clock.advance(3600)
    assert pace.pause_s(500) == 0.5
