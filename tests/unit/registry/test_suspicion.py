from collections.abc import Iterable

from muster.ids import NodeId
from muster.registry.suspicion import Suspicion, Turn

BOUND_S = 120.0
INTERVAL_S = 10.0


def named(numbers: Iterable[int]) -> list[NodeId]:
    return [NodeId(f"n{number}") for number in numbers]


def look(suspicion: Suspicion, late: Iterable[int], on_time: int, at_s: float, lost: Iterable[int] = ()) -> Turn | None:
    return suspicion.look(dict.fromkeys(named(late), INTERVAL_S), named(lost), on_time, round(at_s * 1000))


def suspecting(late: int = 6, on_time: int = 2) -> Suspicion:
    suspicion = Suspicion(BOUND_S)
    assert look(suspicion, range(late), on_time, 0) is Turn.SUSPECTS
    return suspicion


def test_most_nodes_late_within_an_interval_are_our_own_fault() -> None:
    suspicion = Suspicion(BOUND_S)
    assert look(suspicion, [], 7, 0) is None
    assert look(suspicion, range(2), 5, 4) is None
    assert suspicion.suspects == 0
    assert look(suspicion, range(4), 3, 8) is Turn.SUSPECTS
    assert suspicion.active
    assert suspicion.suspects == 4
    assert suspicion.excuses(NodeId("n3"))
    assert not suspicion.excuses(NodeId("n4"))


def test_half_of_the_nodes_is_not_most_of_them() -> None:
    assert look(Suspicion(BOUND_S), range(5), 5, 0) is None
    assert look(Suspicion(BOUND_S), range(6), 5, 0) is Turn.SUSPECTS


def test_three_nodes_may_well_fail_together() -> None:
    assert look(Suspicion(BOUND_S), range(3), 0, 0) is None


def test_nodes_that_go_late_one_after_the_other_are_not_our_fault() -> None:
    suspicion = Suspicion(BOUND_S)
    for gone in range(1, 8):
        assert look(suspicion, range(gone), 8 - gone, gone * 16.0) is None


def test_the_window_is_as_long_as_the_nodes_own_interval() -> None:
    slow = dict.fromkeys(named(range(6)), 60.0)
    suspicion = Suspicion(BOUND_S)
    assert suspicion.look(dict(list(slow.items())[:3]), (), 3, 0) is None
    assert suspicion.look(slow, (), 0, 60_000) is Turn.SUSPECTS


def test_nodes_lost_long_ago_do_not_make_most_of_them() -> None:
    assert look(Suspicion(BOUND_S), range(3), 2, 0, lost=range(10, 30)) is None
    assert look(Suspicion(BOUND_S), range(4), 2, 0, lost=range(10, 30)) is Turn.SUSPECTS


def test_it_ends_when_most_of_the_suspects_are_heard_again() -> None:
    suspicion = suspecting()
    assert look(suspicion, range(3), 5, 10) is None
    assert look(suspicion, range(2), 6, 11) is Turn.HEARS_AGAIN
    assert not suspicion.active
    assert suspicion.suspects == 0


def test_a_suspect_that_another_control_plane_calls_lost_is_not_heard_by_that() -> None:
    suspicion = suspecting()
    assert look(suspicion, [], 2, 10, lost=range(6)) is None
    assert suspicion.active


def test_those_who_go_late_in_the_meantime_are_suspects_too() -> None:
    suspicion = suspecting(late=4, on_time=2)
    assert look(suspicion, range(6), 0, 5) is None
    assert look(suspicion, range(3), 3, 6) is None
    assert look(suspicion, range(2), 4, 7) is Turn.HEARS_AGAIN


def test_it_gives_up_after_the_bound_and_does_not_begin_anew_with_the_same_nodes() -> None:
    suspicion = suspecting()
    assert look(suspicion, range(6), 2, BOUND_S - 0.001) is None
    assert look(suspicion, range(6), 2, BOUND_S) is Turn.GIVES_UP
    assert look(suspicion, range(6), 2, BOUND_S + 0.1) is None
    assert look(suspicion, [], 8, BOUND_S + 60) is None
    assert look(suspicion, range(6), 2, BOUND_S + 100) is Turn.SUSPECTS


def test_a_clock_that_is_set_changes_nothing() -> None:
    suspicion = Suspicion(BOUND_S)
    assert look(suspicion, range(3), 4, 0) is None
    suspicion.shift(3_600_000)
    assert look(suspicion, range(4), 3, 3605) is Turn.SUSPECTS
    suspicion.shift(-3_600_000)
    assert look(suspicion, range(4), 3, 5 + BOUND_S - 0.001) is None
    assert look(suspicion, range(4), 3, 5 + BOUND_S) is Turn.GIVES_UP
