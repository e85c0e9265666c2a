import pytest

from muster.placement.line import Line, Ticket


def drained(line: Line[str]) -> str:
    order = []
    while len(line):
        ticket = line.first
        order.append(ticket.waits)
        line.let_in(ticket)
    return "".join(order)


def joined(line: Line[str], *those: str, priority: int = 50) -> list[Ticket[str]]:
    """Each is named by a letter; so is whose it is, by the same in small."""
    return [line.join(one, one.lower(), priority, now_s) for now_s, one in enumerate(those)]


def test_of_one_caller_who_comes_first_is_first():
    line: Line[str] = Line()
    for one in "abc":
        line.join(one, "me", 50, 0.0)
    assert drained(line) == "abc"


def test_callers_take_turns_however_much_each_asks():
    line: Line[str] = Line()
    for _ in range(4):
        line.join("m", "much", 50, 0.0)
    line.join("l", "little", 50, 0.0)
    line.join("o", "other", 50, 0.0)
    assert drained(line) == "mlommm"


def test_who_comes_later_does_not_pay_for_what_others_had_before():
    line: Line[str] = Line()
    for _ in range(5):
        line.join("a", "a", 50, 0.0)
    for _ in range(3):
        line.let_in(line.first)
    line.join("b", "b", 50, 0.0)
    assert drained(line) == "aba"


def test_what_matters_more_goes_before_all_else():
    line: Line[str] = Line()
    joined(line, "A", "B", priority=0)
    joined(line, "C", priority=50)
    joined(line, "D", priority=100)
    assert (line.first.priority, line.last.priority) == (100, 0)
    assert drained(line) == "DCAB"


def test_everybody_knows_their_place():
    line: Line[str] = Line()
    tickets = joined(line, "A", "B", "C")
    assert [line.place(ticket) for ticket in tickets] == [1, 2, 3]
    line.leave(tickets[1])
    assert [line.place(tickets[0]), line.place(tickets[2])] == [1, 2]
    assert line.oldest_s == 0
    assert line.by_who() == {"a": 1, "c": 1}
    assert [ticket.waits for ticket in line] == ["A", "C"]


@pytest.mark.parametrize("which", [0, 1])
def test_who_has_left_cannot_leave_again(which: int):
    line: Line[str] = Line()
    tickets = joined(line, "A", "B")
    line.leave(tickets[which])
    line.leave(tickets[which])
    assert len(line) == 1
    line.let_in(tickets[1 - which])
    assert len(line) == 0


def test_nothing_is_remembered_of_callers_whose_turn_has_passed():
    line: Line[str] = Line()
    joined(line, *"ABCDEFGH")
    drained(line)
    assert line._last == {}


def test_who_has_more_weight_has_more_turns_of_those_who_matter_as_much():
    line: Line[str] = Line()
    for _ in range(6):
        line.join("h", "heavy", 50, 0.0, weight=3.0)
    for _ in range(3):
        line.join("l", "light", 50, 0.0)
    line.join("p", "poor", 60, 0.0, weight=0.01)
    assert line.weights() == {"heavy": 3.0, "light": 1.0, "poor": 0.01}
    assert drained(line) == "phhhlhhhll"


def test_a_turn_that_was_not_taken_costs_nothing():
    line: Line[str] = Line()
    line.join("a", "a", 50, 0.0)
    for _ in range(5):
        line.leave(line.join("x", "patient", 50, 0.0, weight=0.5))
    line.join("p", "patient", 50, 0.0, weight=0.5)
    for _ in range(3):
        line.join("a", "a", 50, 0.0)
    assert drained(line) == "apaaa"
