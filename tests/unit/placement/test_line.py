import pytest

from muster.placement.line import First, Line, Ticket


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


# --- lines of several gateways ----------------------------------------------------------------------------------------


def drained_together(*lines: Line[str]) -> str:
    """Let in from each line in turn as gateways do that tell each other at once, one slot at a time."""
    order = []
    while any(map(len, lines)):
        line = next(one for one in lines if len(one) and not any(goes_before(other, one) for other in lines))
        ticket = line.first
        order.append(ticket.waits)
        line.let_in(ticket)
        for other in lines:
            if other is not line:
                other.let_in_elsewhere({(ticket.priority, ticket.who): 1})
                if len(line):
                    other.catch_up(line.head)
    return "".join(order)


def goes_before(one: Line[str], other: Line[str]) -> bool:
    return one is not other and len(one) > 0 and one.head.goes_before(other.head)


def waits(line: Line[str], who: str, count: int, since_s: float, *, weight: float = 1.0, priority: int = 50) -> None:
    for _ in range(count):
        line.join(who, who, priority, since_s, weight)


def test_a_caller_has_the_same_turns_at_two_gateways_as_at_one():
    here, there = Line[str](), Line[str]()
    waits(here, "m", 4, 0.0)
    waits(there, "m", 4, 1.0)
    waits(there, "o", 4, 2.0)
    assert drained_together(here, there) == "momomomommmm"


def test_who_floods_one_gateway_leaves_others_their_turns_at_another():
    here, there = Line[str](), Line[str]()
    waits(here, "m", 6, 0.0)
    waits(there, "l", 2, 1.0)
    waits(there, "t", 4, 1.0, weight=2.0)
    assert drained_together(here, there) == "tmlttmltmmmm"


def test_who_matters_more_goes_first_wherever_he_waits():
    here, there = Line[str](), Line[str]()
    waits(here, "a", 2, 0.0)
    waits(there, "b", 2, 1.0, priority=60)
    assert drained_together(here, there) == "bbaa"


def test_of_one_caller_the_oldest_goes_first_wherever_it_waits():
    here, there = Line[str](), Line[str]()
    for since_s, line, name in ((0.0, here, "1"), (1.0, there, "2"), (2.0, here, "3"), (3.0, there, "4")):
        line.join(name, "me", 50, since_s, 3.0)
    assert drained_together(here, there) == "1234"


def test_a_line_that_begins_stands_where_the_others_are():
    there = Line[str]()
    waits(there, "m", 9, 0.0)
    for _ in range(5):
        there.let_in(there.first)
    assert there.head == First(50, 6.0, 0.0, 5.0)
    here = Line[str]()
    here.catch_up(there.head)
    waits(here, "n", 3, 1.0)
    assert drained_together(there, here) == "mnmnmnm"


def test_turns_elsewhere_are_for_who_had_them_and_places_stay_in_order():
    line = Line[str]()
    tickets = joined(line, "A", "B", "A")
    line.let_in_elsewhere({(50, "a"): 1, (0, "b"): 5, (50, "nobody"): 1})
    assert [line.place(ticket) for ticket in tickets] == [2, 1, 3]
    line.leave(tickets[2])
    tickets[2] = line.join("A", "a", 50, 9.0)
    assert drained(line) == "BAA"


def test_a_line_may_be_ahead_by_some_turns_before_it_gives_way():
    here, there = First(50, 3.0, 0.0, 2.0), First(50, 1.0, 9.0, 0.0)
    assert there.goes_before(here)
    assert there.goes_before(here, 1.5)
    assert not there.goes_before(here, 2.0)
    assert First(60, 9.0, 9.0, 0.0).goes_before(here, 100.0), "what matters more always does"
    assert not here.goes_before(there)
    assert First(50, 3.0 + 1e-9, -1.0, 2.0).goes_before(here), "of the same place who has waited longer"
