from typing import Any

import pytest

from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from muster.registry.boots import RETIRED_MAX
from muster.registry.merge import merged


def node(boot_id: str = "a", seq: int = 5, revision: int = 10, **more: Any) -> Node:
    fields: dict[str, Any] = {"facts": NodeFacts(node_id=NodeId("n")), "health": Health.HEALTHY} | more
    return Node(boot_id=boot_id, seq=seq, revision=revision, **fields)


def both(first: Node, second: Node) -> Node:
    """Return what both sides come to."""
    here, there = merged(first, second), merged(second, first)
    assert here == there
    assert merged(here, second) == merged(here, first) == here
    return here


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (node(seq=5, revision=99), node(seq=6, revision=10)),
        (node(revision=10), node(revision=11, health=Health.STALE)),
        (node(), node(health=Health.STALE)),
        (node(health=Health.STALE), node(health=Health.DEAD)),
        (node(), node(connected=False)),
        (node(last_seen_ms=1), node(last_seen_ms=2)),
        (node("a", seq=90, revision=90), node("b", seq=0, revision=1, retired_boot_ids=("a",))),
    ],
)
def test_who_was_heard_later_wins(older: Node, newer: Node) -> None:
    assert both(older, newer) == newer


def test_a_boot_that_returned_wins_over_the_one_that_had_retired_it() -> None:
    stray = node("stray", seq=1, revision=20, retired_boot_ids=("a",))
    back = node("a", seq=9, revision=30, retired_boot_ids=("stray",))
    assert both(stray, back) == back


def test_of_two_new_boots_the_one_changed_last_retires_the_other() -> None:
    result = both(node("b", revision=20, retired_boot_ids=("a",)), node("c", revision=21, retired_boot_ids=("a",)))
    assert (result.boot_id, result.retired_boot_ids) == ("c", ("a", "b"))


def test_what_both_know_of_retired_boots_is_kept_up_to_a_bound() -> None:
    first = node("now", revision=1, retired_boot_ids=tuple(f"x{number}" for number in range(RETIRED_MAX)))
    second = node("now", revision=2, retired_boot_ids=("y",))
    result = both(first, second)
    assert result.retired_boot_ids == (*first.retired_boot_ids[1:], "y")


def test_what_people_decided_last_holds_whatever_was_heard_since() -> None:
    decided = node(seq=5, draining=True, draining_at_ms=100, drained_services=("llm",))
    heard = node(seq=9, revision=12)
    result = both(decided, heard)
    assert (result.seq, result.draining, result.drained_services, result.draining_at_ms) == (9, True, ("llm",), 100)
    taken_back = node(seq=7, draining=False, draining_at_ms=101)
    assert not both(result, taken_back).draining


def test_of_two_decisions_at_one_time_the_careful_one_holds() -> None:
    assert both(node(draining_at_ms=7), node(draining=True, draining_at_ms=7)).draining
