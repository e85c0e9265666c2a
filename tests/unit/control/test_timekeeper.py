from muster.control.timekeeper import Timekeeper


class Clock:
    """Wall and monotonic time that move apart."""

    def __init__(self) -> None:
        self.wall_ms, self.steady_s = 1_000_000, 50.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.steady_s

    def advance(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.steady_s += seconds


def watched() -> tuple[Clock, Timekeeper, list[int]]:
    clock, told = Clock(), list[int]()
    keeper = Timekeeper(clock)
    keeper.on_set(told.append)
    return clock, keeper, told


def test_time_that_passes_is_no_news() -> None:
    clock, keeper, told = watched()
    for _ in range(1000):
        clock.advance(0.3337)
        assert (keeper.now_ms(), keeper.monotonic_s()) == (clock.wall_ms, clock.steady_s)
    assert told == []


def test_a_clock_that_is_set_is_told_of_before_the_new_time_is_used() -> None:
    clock, keeper, told = watched()
    clock.wall_ms += 3_600_000
    assert keeper.now_ms() == 4_600_000
    assert told == [3_600_000]
    clock.advance(5)
    clock.wall_ms -= 7_200_000
    keeper.now_ms()
    keeper.now_ms()
    assert told == [3_600_000, -7_200_000]


def test_a_clock_that_is_slewed_moves_along() -> None:
    clock, keeper, told = watched()
    for _ in range(100):
        clock.advance(1)
        clock.wall_ms += 40
        keeper.now_ms()
    assert told == []
