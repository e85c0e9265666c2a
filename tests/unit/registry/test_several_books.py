"""What control planes make of each other's words, and of times in which they do not hear."""

import pytest
from msgspec.structs import replace

from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus
from muster.registry.book import DropNode, NodeBook, SaveNode, ShowNode, Verdict
from muster.registry.lateness import Limits
from muster.wire.peers import NodeGone
from tests.unit.registry.makers import NODE, book, events, heartbeat, kinds, registration, worker

HOUR_MS = 3_600_000


def record(nodes: NodeBook, node_id: str = NODE) -> Node:
    node = nodes.get(NODE if node_id == NODE else node_id)  # type: ignore[arg-type]  # a test's own shorthand
    assert node is not None
    return node


def two(now_ms: int = 0) -> tuple[NodeBook, NodeBook]:
    """Return two books that know one healthy node, boot-a at seq 1, which the first has heard."""
    here, there = book(), book()
    here.heard(heartbeat(1), "http", now_ms)
    assert there.observed(record(here), now_ms) == [ShowNode(NODE)]
    return here, there


# --- heard elsewhere ------------------------------------------------------------------------------------------------


def test_what_another_control_plane_heard_counts_and_is_told_of_to_nobody() -> None:
    here, there = two()
    here.heard(heartbeat(2, status=Health.DEGRADED, workers=(worker(0, WorkerStatus.BUSY),)), "http", 30_000)
    assert there.observed(record(here), 30_500) == [ShowNode(NODE)]
    assert record(there) == record(here)
    assert not there.is_late(record(there), 60_500)
    assert there.is_late(record(there), 60_501)


def test_the_same_record_twice_or_late_changes_nothing() -> None:
    here, there = two()
    old = record(here)
    here.heard(heartbeat(2), "http", 10_000)
    new = record(here)
    assert there.observed(new, 10_000) == [ShowNode(NODE)]
    assert there.observed(new, 90_000) == []
    assert there.observed(old, 90_000) == []
    assert there.is_late(new, 90_000)


def test_a_node_heard_here_and_there_in_turn_is_steady() -> None:
    books = two()
    for seq in range(2, 40):
        listener, other = books[seq % 2], books[1 - seq % 2]
        heard = listener.heard(heartbeat(seq), "http", seq * 10_000)
        assert (heard.verdict, kinds(heard.effects)) == (Verdict.KNOWN, [])
        assert other.observed(record(listener), seq * 10_000) == [ShowNode(NODE)]
        assert [nodes.tick(seq * 10_000) for nodes in books] == [[], []]


def test_an_old_heartbeat_counts_on_no_control_plane() -> None:
    here, there = two()
    here.heard(heartbeat(1, "boot-b"), "http", 10_000)
    there.observed(record(here), 10_000)
    assert there.heard(heartbeat(9, "boot-a"), "http", 10_001).verdict is Verdict.IGNORED_OLD
    assert there.heard(heartbeat(1, "boot-b"), "http", 10_001).verdict is Verdict.IGNORED_OLD
    assert there.heard(heartbeat(2, "boot-b"), "http", 10_001).verdict is Verdict.KNOWN


def test_a_boot_that_another_control_plane_heard_end_is_known_by_its_last_heartbeat() -> None:
    here, there = two()
    there.observed(replace(record(here), boot_id="boot-b", revision=5, retired_boot_ids=("boot-0", "boot-a")), 10_000)
    assert record(there).retired_boot_ids == ("boot-0", "boot-a")
    for seq, verdict in ((1, Verdict.IGNORED_OLD), (2, Verdict.SUPERSEDED)):
        there.heard(heartbeat(seq + 8, "boot-b"), "http", 50_000)
        assert there.heard(heartbeat(seq), "http", 50_001).verdict is verdict


def test_what_others_know_of_retired_boots_is_known_here_too() -> None:
    here, there = two()
    there.observed(replace(record(here), revision=5, retired_boot_ids=("boot-0",)), 10_000)
    assert there.heard(heartbeat(9, "boot-0"), "http", 10_001).verdict is Verdict.IGNORED_OLD


def test_the_end_of_a_link_counts_only_where_the_node_was_heard_last() -> None:
    here, there = two()
    assert there.link_changed(NODE, "http", 1, connected=False) == []
    there.heard(heartbeat(2), "http", 2)
    here.observed(record(there), 2)
    assert here.link_changed(NODE, "http", 3, connected=False) == []
    assert kinds(there.link_changed(NODE, "http", 4, connected=False)) == ["node_link_changed"]
    assert here.observed(record(there), 5) == [ShowNode(NODE)]
    assert not record(here).connected


def test_a_full_book_takes_nobody_in_that_others_heard() -> None:
    here, _ = two()
    full = NodeBook(Limits(), nodes_max=1)
    full.heard(heartbeat(1, node_id="other"), "http", 0)
    assert full.observed(record(here), 0) == []


# --- decisions of people --------------------------------------------------------------------------------------------


def test_draining_decided_on_one_holds_on_the_other_though_heartbeats_know_nothing_of_it() -> None:
    here, there = two()
    here.set_draining(NODE, 5, draining=True)
    there.heard(heartbeat(2), "http", 6)
    assert here.observed(record(there), 7) == [ShowNode(NODE), SaveNode(record(here))]
    assert record(here).draining
    assert there.observed(record(here), 8) == [ShowNode(NODE)]
    assert record(there) == record(here)
    there.heard(heartbeat(3), "http", 9)
    assert record(there).draining


def test_a_decision_counts_as_newer_whatever_the_clocks_say() -> None:
    here, there = two()
    here.set_draining(NODE, HOUR_MS, draining=True)
    there.observed(record(here), 1)
    there.set_draining(NODE, 2, draining=False)
    there.set_service_draining(NODE, "llm", 3, draining=True)
    here.observed(record(there), HOUR_MS + 1)
    assert (record(here).draining, record(here).drained_services) == (False, ("llm",))


# --- leaving --------------------------------------------------------------------------------------------------------


def test_a_goodbye_heard_elsewhere_holds_here_against_messages_still_on_the_way() -> None:
    here, there = two()
    here.deregistered(NODE, "boot-a", "stopped", 5_000)
    assert there.observed_drop(here.gone(NODE), 5_000) == [ShowNode(NODE)]
    assert there.nodes() == []
    assert there.heard(heartbeat(2), "http", 6_000).verdict is Verdict.IGNORED_OLD
    assert there.observed_drop(here.gone(NODE), 7_000) == []


def test_who_heard_the_node_last_deletes_it_again() -> None:
    here, there = two()
    there.heard(heartbeat(2), "http", 4_999)
    here.deregistered(NODE, "boot-a", "stopped", 5_000)
    assert there.observed_drop(here.gone(NODE), 5_001) == [ShowNode(NODE), DropNode(NODE)]


def test_newer_life_is_not_dropped_by_an_old_word() -> None:
    here, there = two()
    here.forget(NODE, 5_000)
    there.heard(heartbeat(1, "boot-b"), "http", 6_000)
    assert there.observed_drop(here.gone(NODE), 7_000) == [SaveNode(record(there))]
    here.observed(record(there), 7_001)
    assert record(here).boot_id == "boot-b"


def test_a_record_from_before_the_drop_does_not_bring_the_node_back() -> None:
    here, there = two()
    old = record(here)
    here.forget(NODE, 5_000)
    assert here.observed(old, 6_000) == []
    assert here.observed(old, 6_000, stored=True) == [DropNode(NODE)]
    there.heard(heartbeat(2), "http", 7_000)
    assert here.observed(record(there), 7_000) == [ShowNode(NODE)]


def test_a_goodbye_to_one_who_knows_nothing_reaches_those_who_do() -> None:
    here, _ = two()
    stranger = book()
    assert stranger.deregistered(NODE, "boot-a", "stopped", 5_000) == [DropNode(NODE)]
    here.observed_drop(stranger.gone(NODE), 5_001)
    assert here.nodes() == []


def test_what_is_remembered_of_the_departed_adds_up() -> None:
    here, _ = two()
    here.observed_drop(NodeGone(NODE, ("boot-a",), revision=7), 5_000)
    here.observed_drop(NodeGone(NODE, ("boot-b",), revision=5), 5_001)
    assert here.gone(NODE) == NodeGone(NODE, ("boot-a", "boot-b"), revision=7)
    here.registered(registration(boot_id="boot-c"), "http", 3)
    assert record(here).revision == 8
    assert here.gone(NODE) == NodeGone(NODE)


# --- the store ------------------------------------------------------------------------------------------------------


def test_an_older_record_in_the_store_is_written_again() -> None:
    here, _ = two()
    old = record(here)
    here.heard(heartbeat(2), "http", 10_000)
    assert here.observed(old, 10_001) == []
    assert here.observed(old, 10_001, stored=True) == [SaveNode(record(here))]
    assert here.observed(record(here), 10_001, stored=True) == []


def test_what_the_store_lacks_was_dropped_unless_it_is_heard_here() -> None:
    here, there = two()
    assert there.not_stored((), 0, 1) == []  # it may have come while we asked
    assert there.not_stored({NODE}, 1, 1) == []
    assert there.not_stored((), 1, 1) == [ShowNode(NODE)]
    assert there.nodes() == []
    assert here.not_stored((), 1, 30_000) == [SaveNode(record(here))]
    assert here.not_stored((), 1, 30_001) == [ShowNode(NODE)]


# --- silence --------------------------------------------------------------------------------------------------------


def test_only_one_judges_and_the_others_show_it() -> None:
    here, there = two()
    assert kinds(here.tick(41_000, judging=False)) == []
    assert kinds(there.tick(41_000)) == ["node_stale"]
    assert here.observed(record(there), 41_001) == [ShowNode(NODE)]
    assert record(here).health is Health.STALE
    assert kinds(there.tick(100_001)) == ["node_dead"]
    here.observed(record(there), 100_002)
    assert record(here).health is Health.DEAD
    assert kinds(here.heard(heartbeat(2), "http", 100_003).effects)[0] == "node_recovered"
    assert kinds(there.observed(record(here), 100_004)) == []


def test_that_a_node_is_lost_is_taken_back_once_by_who_heard_it_meanwhile() -> None:
    here, there = two()
    there.tick(41_000)
    judged = record(there)
    here.heard(heartbeat(2), "http", 41_000)
    assert kinds(here.observed(judged, 41_001)) == ["node_recovered"]
    assert here.observed(judged, 41_002) == []
    assert record(here).health is Health.HEALTHY
    assert kinds(there.observed(record(here), 41_003)) == []
    assert record(there) == record(here)


def test_who_was_only_told_of_the_newer_heartbeat_takes_nothing_back() -> None:
    here, there = two()
    third = book()
    there.tick(41_000)
    here.heard(heartbeat(2), "http", 41_000)
    third.observed(record(here), 41_001)
    assert third.observed(record(there), 41_002) == []


def test_who_does_not_hear_the_others_holds_silence_against_nobody() -> None:
    here, _ = two()
    here.deafened(20_000)
    here.deafened(25_000)
    assert not here.hears
    assert here.tick(HOUR_MS) == []
    assert not here.is_late(record(here), HOUR_MS)
    here.hears_again(HOUR_MS)
    here.hears_again(HOUR_MS + 40_000)
    assert here.tick(HOUR_MS + 40_000) == []
    assert kinds(here.tick(HOUR_MS + 40_001)) == ["node_stale"]


def test_a_node_that_was_late_before_we_went_deaf_stays_late() -> None:
    here, _ = two()
    here.deafened(30_001)
    assert here.is_late(record(here), 30_002)


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_our_own_clock_may_be_set_and_no_node_is_late_or_early_by_it(by_ms: int) -> None:
    here, _ = two(10 * HOUR_MS)
    start_ms = 10 * HOUR_MS
    here.heard(heartbeat(1, "boot-b"), "http", start_ms)
    here.heard(heartbeat(9), "http", start_ms + 31_000)
    here.deregistered(NODE, "boot-c", "stopped", start_ms + 31_001)
    here.heard(heartbeat(1, "boot-d"), "http", start_ms + 31_001)
    here.deregistered(NodeGone("other").node_id, "boot-x", "stopped", start_ms + 31_001)  # type: ignore[arg-type]  # as above
    here.clock_set(by_ms)
    now_ms = start_ms + 31_001 + by_ms
    assert here.tick(now_ms + 40_000) == []
    assert not here.is_late(record(here), now_ms + 30_000)
    assert here.is_late(record(here), now_ms + 30_001)
    assert kinds(here.tick(now_ms + 40_001)) == ["node_stale"]


def test_a_clock_set_while_we_are_deaf_or_rivals_are_heard_moves_these_times_too() -> None:
    here, _ = two()
    for step in range(1, 6):
        here.heard(heartbeat(step, "boot-b"), "http", step * 10_000)
        here.heard(heartbeat(1 + step), "http", step * 10_000 + 5_000)
    here.deafened(56_000)
    here.clock_set(HOUR_MS)
    assert not here.is_late(record(here), HOUR_MS + 90_000)
    here.hears_again(HOUR_MS + 56_000)
    assert kinds(here.heard(heartbeat(7), "http", HOUR_MS + 60_000).effects) == []  # told of less than a minute ago


def fleet(count: int) -> NodeBook:
    nodes = NodeBook(Limits(), suspicion_s=60.0, plane_id="plane-1")
    for number in range(count):
        nodes.heard(heartbeat(1, node_id=f"n{number}"), "http", 0)
    return nodes


def test_when_most_nodes_fall_silent_at_once_nobody_is_judged_until_they_are_heard_again() -> None:
    nodes = fleet(6)
    nodes.heard(heartbeat(2, node_id="n5"), "http", 20_000)
    (doubt,) = events(nodes.tick(31_000))
    assert (doubt.kind, doubt.key) == ("control_plane_suspects_itself", "plane-1")
    assert doubt.data["reason"] == "5 of 6 nodes went silent at once"
    assert nodes.suspects_itself
    assert nodes.tick(85_000) == []
    assert not any(nodes.is_late(node, 85_000) for node in nodes.nodes() if node.node_id != "n5")
    for number in range(4):
        nodes.heard(heartbeat(2, node_id=f"n{number}"), "http", 85_000)
    assert kinds(nodes.tick(85_001)) == ["control_plane_trusts_itself_again"]
    assert nodes.tick(115_000) == []
    assert not any(nodes.is_late(node, 115_000) for node in nodes.nodes())


def test_when_the_bound_has_passed_nodes_are_judged_as_usual() -> None:
    nodes = fleet(4)
    nodes.tick(31_000)
    assert nodes.tick(90_999) == []
    told = kinds(nodes.tick(91_000))
    assert told == ["control_plane_trusts_itself_again", *["node_stale"] * 4]
    assert all(nodes.is_late(node, 91_000) for node in nodes.nodes())
    assert kinds(nodes.tick(100_001)) == ["node_dead"] * 4


def test_three_nodes_that_fall_silent_together_are_judged() -> None:
    assert kinds(fleet(3).tick(41_000)) == ["node_stale"] * 3


def test_who_knows_that_the_machine_is_off_need_not_wait_for_silence() -> None:
    here, _ = two()
    assert kinds(here.lost(NODE, "its machine was stopped", 1)) == ["node_dead"]
    assert here.lost(NODE, "its machine was stopped", 2) == []
    assert kinds(here.heard(heartbeat(2), "http", 3).effects)[0] == "node_recovered"
