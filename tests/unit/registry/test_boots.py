"""A node with an interval of 10 s: the window in which a boot counts as heard is 30 s."""

from muster.domain.node import Health, Node
from muster.registry.boots import RETIRED_MAX, Boots, Standing
from tests.unit.registry.makers import facts

WINDOW_MS = 30_000


def node(boot_id: str, seq: int = 1) -> Node:
    return Node(facts=facts(), health=Health.HEALTHY, boot_id=boot_id, seq=seq)


def judge(boots: Boots, current: Node, boot_id: str, seq: int, now_ms: int, silent_since_ms: int) -> Standing:
    return boots.standing(current, boot_id, seq, now_ms, silent_since_ms=silent_since_ms, window_ms=WINDOW_MS)


def test_within_a_boot_only_a_growing_seq_counts() -> None:
    boots = Boots((), 0)
    assert judge(boots, node("a", 5), "a", 6, 0, 0) is Standing.CURRENT
    assert judge(boots, node("a", 5), "a", 5, 0, 0) is Standing.OLD
    assert judge(boots, node("a", 5), "a", 4, 0, 0) is Standing.OLD


def test_a_boot_never_seen_is_new() -> None:
    assert judge(Boots(("a",), 0), node("b"), "c", 0, 0, 0) is Standing.NEW


def test_what_a_retired_boot_sent_before_its_end_is_old() -> None:
    boots = Boots((), 0)
    boots.replace(node("a", 5), "b", 1_000)
    assert judge(boots, node("b"), "a", 6, 2_000, 1_000) is Standing.OLD
    assert judge(boots, node("b"), "a", 6, 90_000, 90_000) is Standing.OLD  # the same again: not a sign of life


def test_a_retired_boot_that_talks_on_beside_the_current_one_is_a_rival() -> None:
    boots = Boots((), 0)
    boots.replace(node("a", 5), "b", 1_000)
    assert judge(boots, node("b"), "a", 6, 31_000, 31_000) is Standing.OLD
    assert judge(boots, node("b"), "a", 7, 31_001, 31_000) is Standing.RIVAL


def test_a_retired_boot_returns_when_only_it_is_heard() -> None:
    boots = Boots(("a",), 0)
    standings = [judge(boots, node("b"), "a", seq, 40_000 + seq * 10_000, 1_000) for seq in range(4)]
    assert standings == [Standing.OLD, Standing.OLD, Standing.OLD, Standing.RETURNED]


def test_old_messages_that_arrive_in_one_burst_do_not_return() -> None:
    boots = Boots(("a",), 0)
    assert {judge(boots, node("b"), "a", seq, 900_000 + seq, 1_000) for seq in range(20)} == {Standing.OLD}


def test_a_word_of_the_current_boot_starts_the_wait_anew() -> None:
    boots = Boots(("a",), 0)
    assert judge(boots, node("b"), "a", 1, 40_000, 1_000) is Standing.OLD
    assert judge(boots, node("b"), "a", 2, 90_000, 50_000) is Standing.OLD
    assert judge(boots, node("b"), "a", 3, 120_000, 50_000) is Standing.RETURNED


def test_a_returned_boot_is_retired_no_more() -> None:
    boots = Boots(("a",), 0)
    boots.replace(node("b"), "a", 1_000)
    assert boots.retired_ids == ("b",)
    assert not boots.is_retired("a")


def test_only_the_newest_retired_boots_are_remembered() -> None:
    boots = Boots((), 0)
    for number in range(RETIRED_MAX + 3):
        boots.replace(node(f"boot-{number}"), f"boot-{number + 1}", number)
    assert boots.retired_ids == tuple(f"boot-{number}" for number in range(3, RETIRED_MAX + 3))
