"""Any course of joining and leaving: turns are taken fairly; and any load: no conversation overloads its home."""

import math
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.placement.balance import LOAD_BOUND, home
from muster.placement.choose import eligible
from muster.placement.line import Line, Ticket
from muster.placement.wish import Wish
from tests.unit.placement.makers import candidate

callers = st.sampled_from("abc")
priorities = st.sampled_from([0, 50, 100])
steps = st.lists(st.tuples(st.sampled_from(["join", "join", "let_in", "leave"]), callers, priorities), max_size=60)


@given(steps)
def test_a_line_is_sorted_by_priority_and_each_callers_own_stay_in_order(course: list[tuple[str, str, int]]) -> None:
    line: Line[int] = Line()
    waiting: list[Ticket[int]] = []
    for number, (what, who, priority) in enumerate(course):
        if what == "join":
            waiting.append(line.join(number, who, priority, number))
        elif waiting and what == "let_in":
            first = line.first
            assert first.priority == max(ticket.priority for ticket in waiting)
            line.let_in(first)
            waiting.remove(first)
        elif waiting:
            line.leave(waiting.pop(len(waiting) // 2))
        order = list(line)
        assert sorted(map(id, order)) == sorted(map(id, waiting))
        assert [line.place(ticket) for ticket in order] == list(range(1, len(order) + 1))
        assert [ticket.priority for ticket in order] == sorted((t.priority for t in order), reverse=True)
        for caller in "abc":
            for level in (0, 50, 100):
                own = [t.waits for t in order if t.who == caller and t.priority == level]
                assert own == sorted(own)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 100))
def test_while_several_wait_none_is_let_in_two_times_more_often_than_another(many: list[int], seed: int) -> None:
    """Whoever asks more has more at the end, when the others have nothing waiting any more."""
    line: Line[str] = Line()
    asked = [str(caller) for caller, count in enumerate(many) for _ in range(count)]
    for place in range(len(asked)):
        who = asked[(place * 7 + seed) % len(asked)] if math.gcd(7, len(asked)) == 1 else asked[place]
        line.join(who, who, 50, 0.0)
    got: Counter[str] = Counter()
    while all(line.by_who()[str(caller)] for caller in range(len(many))):
        got[line.first.who] += 1
        line.let_in(line.first)
    counts = [got[str(caller)] for caller in range(len(many))]
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 8.0]), min_size=2, max_size=5), st.integers(1, 40))
def test_while_all_wait_each_has_turns_by_its_weight(weights: list[float], rounds: int) -> None:
    line: Line[int] = Line()
    for who, weight in enumerate(weights):
        for _ in range(rounds * 8):
            line.join(who, str(who), 50, 0.0, weight)
    got: Counter[int] = Counter()
    while all(line.by_who()[str(who)] for who in range(len(weights))):
        got[line.first.waits] += 1
        line.let_in(line.first)
    turns = [got[who] / weight for who, weight in enumerate(weights)]
    assert max(turns) - min(turns) <= 1 / min(weights) + 1e-6


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(shapes, st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=80))
def test_no_home_is_loaded_beyond_the_bound(slots: list[int], course: list[tuple[int, bool]]) -> None:
    fleet = [candidate(f"n{number}", "m", slots=count) for number, count in enumerate(slots)]
    found = eligible(Wish(model="m"), fleet)
    in_flight: dict[str, int] = {}
    held: list[Any] = []
    for conversation, ends in course:
        if ends and held:
            in_flight[held.pop(0).key] -= 1
            continue
        total = sum(in_flight.values()) + 1
        one = home(found.seats, found.warm, in_flight, conversation)
        if one is None:
            assert total > sum(slots)  # all are full
            continue
        held.append(one)
        in_flight[one.key] = in_flight.get(one.key, 0) + 1
        share = (one.slots or 1) / sum(slots)
        assert in_flight[one.key] <= math.ceil(LOAD_BOUND * total * share)
        assert in_flight[one.key] <= (one.slots or 1)
