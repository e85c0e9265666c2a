import pytest

from muster.domain.node import Health, Node, Phase
from muster.domain.worker import WorkerStatus
from muster.errors import InvalidInput, NodeNotFound, QueueFull
from muster.ids import NodeId
from muster.registry.book import DropNode, Effect, NodeBook, SaveNode, Verdict
from muster.registry.lateness import Limits
from tests.unit.registry.makers import NODE, book, events, facts, heartbeat, kinds, registration, service, worker

HOUR_MS = 3_600_000


def record(nodes: NodeBook, node_id: str = NODE) -> Node:
    node = nodes.get(NodeId(node_id))
    assert node is not None
    return node


def living(now_ms: int = 0) -> NodeBook:
    """Return a book with one healthy node, boot-a at seq 1."""
    nodes = book()
    nodes.heard(heartbeat(1), "http", now_ms)
    return nodes


# --- registering and the first heartbeat -----------------------------------------------------------------------------


def test_a_registered_node_is_listed_before_any_heartbeat() -> None:
    nodes = book()
    effects = nodes.registered(registration(phase=Phase.CONFIGURING), "http", 7)
    node = record(nodes)
    assert nodes.nodes() == [node]
    assert (node.health, node.phase, node.registered_at_ms, node.booted_at_ms) == (
        Health.REGISTERING,
        Phase.CONFIGURING,
        7,
        7,
    )
    assert kinds(effects) == ["node_registered"]
    assert effects[1] == SaveNode(node)


def test_the_first_heartbeat_of_a_registered_node_makes_it_what_it_says() -> None:
    nodes = book()
    nodes.registered(registration(), "http", 0)
    heard = nodes.heard(heartbeat(0, status=Health.DEGRADED, reason="disk is nearly full"), "http", 10)
    assert heard.verdict is Verdict.KNOWN
    assert (record(nodes).health, record(nodes).reason) == (Health.DEGRADED, "disk is nearly full")
    assert kinds(heard.effects) == ["node_health_changed", "node_phase_changed"]


def test_a_heartbeat_alone_makes_the_whole_record() -> None:
    nodes = book()
    heard = nodes.heard(heartbeat(41, workers=(worker(0),)), "amqp", 5)
    node = record(nodes)
    assert heard.verdict is Verdict.CREATED
    assert kinds(heard.effects) == ["node_registered", "node_health_changed", "worker_status_changed"]
    assert heard.effects[1] == SaveNode(node)
    assert (node.health, node.phase, node.link, node.seq, node.registered_at_ms, node.last_seen_ms) == (
        Health.HEALTHY,
        Phase.READY,
        "amqp",
        41,
        5,
        5,
    )


def test_a_plain_heartbeat_saves_and_tells_nothing() -> None:
    nodes = living()
    heard = nodes.heard(heartbeat(2), "http", 10_000)
    assert heard.effects == [SaveNode(record(nodes))]
    assert record(nodes).last_seen_ms == 10_000


@pytest.mark.parametrize("node_id", ["", "unknown", "UNKNOWN ", "null", "no spaces", "-x"])
def test_a_node_must_have_a_name(node_id: str) -> None:
    nodes = book()
    with pytest.raises(InvalidInput) as registering:
        nodes.registered(registration(node_id), "http", 0)
    with pytest.raises(InvalidInput):
        nodes.heard(heartbeat(1, node_id=node_id), "http", 0)
    assert registering.value.field == "node_id"
    assert nodes.nodes() == []


def test_a_boot_must_have_a_name() -> None:
    nodes = living()
    with pytest.raises(InvalidInput, match="boot_id"):
        nodes.heard(heartbeat(1, boot_id=""), "http", 0)
    with pytest.raises(InvalidInput, match="boot_id"):
        nodes.registered(registration(boot_id=""), "http", 0)
    assert record(nodes).boot_id == "boot-a"


def test_a_heartbeat_must_carry_the_agents_own_word_and_a_count() -> None:
    nodes = book()
    with pytest.raises(InvalidInput, match="got 'dead'"):
        nodes.heard(heartbeat(1, status=Health.DEAD), "http", 0)
    with pytest.raises(InvalidInput, match="got -1"):
        nodes.heard(heartbeat(-1), "http", 0)
    assert nodes.nodes() == []


def test_a_full_book_names_the_setting() -> None:
    nodes = NodeBook(Limits(), nodes_max=1)
    nodes.heard(heartbeat(1), "http", 0)
    with pytest.raises(QueueFull, match="nodes_max") as full:
        nodes.heard(heartbeat(1, node_id="gpu-2"), "http", 0)
    assert full.value.field == "nodes_max"
    assert nodes.heard(heartbeat(2), "http", 1).verdict is Verdict.KNOWN


def test_a_repeated_registration_of_a_live_boot_does_not_unsay_its_heartbeats() -> None:
    nodes = living()
    effects = nodes.registered(registration(), "http", 5_000)
    assert effects == [SaveNode(record(nodes))]
    assert (record(nodes).health, record(nodes).phase, record(nodes).last_seen_ms) == (
        Health.HEALTHY,
        Phase.READY,
        5_000,
    )


def test_what_a_new_boot_says_of_its_services_when_it_registers_is_known_at_once() -> None:
    nodes = living()
    nodes.registered(registration(boot_id="boot-b", services=(service("llama"),)), "http", 5_000)
    assert [known.name for known in record(nodes).services] == ["llama"]


def test_a_known_node_that_was_lost_registers_anew() -> None:
    nodes = living()
    nodes.tick(HOUR_MS)
    effects = nodes.registered(registration(), "http", HOUR_MS)
    node = record(nodes)
    assert (node.health, node.connected, node.reason, node.seq) == (Health.REGISTERING, True, None, 1)
    assert kinds(effects) == ["node_recovered", "node_phase_changed"]
    assert nodes.heard(heartbeat(2), "http", HOUR_MS + 1).verdict is Verdict.KNOWN


# --- order of heartbeats and boots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [0, 1])
def test_a_heartbeat_that_is_not_newer_does_not_count(seq: int) -> None:
    nodes = living()
    before = record(nodes)
    heard = nodes.heard(heartbeat(seq, status=Health.UNHEALTHY), "http", 9_000)
    assert (heard.verdict, heard.effects) == (Verdict.IGNORED_OLD, [])
    assert record(nodes) is before


def test_a_new_boot_takes_the_record_over() -> None:
    nodes = living()
    nodes.set_draining(NODE, 1, draining=True)
    heard = nodes.heard(heartbeat(0, "boot-b"), "http", 5_000)
    node = record(nodes)
    assert heard.verdict is Verdict.KNOWN
    assert kinds(heard.effects) == ["node_rebooted"]
    assert (node.boot_id, node.seq, node.booted_at_ms, node.registered_at_ms) == ("boot-b", 0, 5_000, 0)
    assert node.retired_boot_ids == ("boot-a",)
    assert node.draining
    assert nodes.nodes() == [node]


def test_a_registration_announces_a_new_boot_as_well() -> None:
    nodes = living()
    effects = nodes.registered(registration(boot_id="boot-b"), "http", 5_000)
    assert kinds(effects) == ["node_rebooted", "node_health_changed", "node_phase_changed"]
    assert (record(nodes).health, record(nodes).seq, record(nodes).booted_at_ms) == (Health.REGISTERING, -1, 5_000)
    assert nodes.heard(heartbeat(0, "boot-b"), "http", 6_000).verdict is Verdict.KNOWN
    assert record(nodes).booted_at_ms == 5_000


def test_a_late_message_of_an_old_boot_does_not_count() -> None:
    nodes = living()
    nodes.heard(heartbeat(1, "boot-b"), "http", 5_000)
    before = record(nodes)
    assert nodes.heard(heartbeat(2, "boot-a"), "http", 6_000).verdict is Verdict.IGNORED_OLD
    assert nodes.registered(registration(boot_id="boot-a"), "http", 6_000) == []
    assert nodes.deregistered(NODE, "boot-a", "stopped", 6_000) == []
    assert record(nodes) is before


def test_late_messages_of_an_old_boot_do_not_raise_a_stale_node() -> None:
    nodes = living()
    nodes.heard(heartbeat(1, "boot-b"), "http", 5_000)
    nodes.tick(50_000)
    for seq in range(2, 9):
        assert nodes.heard(heartbeat(seq, "boot-a"), "http", 50_000 + seq).verdict is Verdict.IGNORED_OLD
    assert record(nodes).health is Health.STALE


def test_two_agents_under_one_id_are_told_apart_and_told_of_once_a_minute() -> None:
    nodes = living()
    told: list[Effect] = []
    verdicts = []
    for step in range(1, 13):
        nodes.heard(heartbeat(step, "boot-b"), "http", step * 10_000)
        heard = nodes.heard(heartbeat(1 + step, "boot-a"), "http", step * 10_000 + 5_000)
        verdicts.append(heard.verdict)
        told += heard.effects
    assert verdicts[:3] == [Verdict.IGNORED_OLD] * 3
    assert verdicts[3:] == [Verdict.SUPERSEDED] * 9
    assert kinds(told) == ["node_id_conflict"] * 2
    assert events(told)[0].data["boot_ids"] == ("boot-b", "boot-a")
    assert record(nodes).boot_id == "boot-b"


def test_a_stray_message_of_a_boot_never_known_cannot_lock_out_a_live_agent() -> None:
    nodes = living()
    nodes.heard(heartbeat(7, "boot-stray"), "http", 5_000)
    verdicts = {nodes.heard(heartbeat(1 + step), "http", step * 10_000).verdict for step in range(1, 9)}
    assert verdicts == {Verdict.IGNORED_OLD, Verdict.KNOWN}
    node = record(nodes)
    assert (node.boot_id, node.health, node.retired_boot_ids) == ("boot-a", Health.HEALTHY, ("boot-stray",))


# --- leaving ---------------------------------------------------------------------------------------------------------


def test_a_clean_stop_takes_the_node_off_the_list() -> None:
    nodes = living()
    effects = nodes.deregistered(NODE, "boot-a", "shutting down for the night", 5_000)
    assert effects[0] == DropNode(NODE)
    assert kinds(effects) == ["node_deregistered"]
    assert events(effects)[0].data["reason"] == "shutting down for the night"
    assert nodes.nodes() == []
    assert nodes.deregistered(NODE, "boot-a", "again", 5_001) == [DropNode(NODE)]


def test_messages_still_on_the_way_do_not_bring_a_departed_node_back() -> None:
    nodes = living()
    nodes.heard(heartbeat(0, "boot-b"), "http", 1_000)
    nodes.deregistered(NODE, "boot-b", "stopped", 5_000)
    assert nodes.heard(heartbeat(9, "boot-b"), "http", 6_000).verdict is Verdict.IGNORED_OLD
    assert nodes.heard(heartbeat(9, "boot-a"), "http", 6_000).verdict is Verdict.IGNORED_OLD
    assert nodes.registered(registration(boot_id="boot-b"), "http", 6_000) == []
    assert nodes.nodes() == []


def test_a_departed_node_that_starts_again_is_welcome_and_its_past_stays_retired() -> None:
    nodes = living()
    nodes.deregistered(NODE, "boot-a", "stopped", 5_000)
    nodes.tick(HOUR_MS)
    assert kinds(nodes.registered(registration(boot_id="boot-b"), "http", HOUR_MS)) == ["node_registered"]
    assert record(nodes).retired_boot_ids == ("boot-a",)
    assert nodes.heard(heartbeat(9, "boot-a"), "http", HOUR_MS + 1).verdict is Verdict.IGNORED_OLD


def test_the_past_of_a_departed_node_is_forgotten_in_time() -> None:
    nodes = living()
    nodes.deregistered(NODE, "boot-a", "stopped", 5_000)
    nodes.tick(2 * HOUR_MS)
    nodes.registered(registration(boot_id="boot-b"), "http", 2 * HOUR_MS)
    assert record(nodes).retired_boot_ids == ()


def test_a_departed_boot_that_talks_on_after_all_comes_back() -> None:
    nodes = living()
    nodes.deregistered(NODE, "boot-a", "stopped", 5_000)
    nodes.tick(35_000)
    assert nodes.heard(heartbeat(8), "http", 35_000).verdict is Verdict.IGNORED_OLD
    nodes.tick(35_001)
    assert nodes.heard(heartbeat(9), "http", 35_001).verdict is Verdict.CREATED


def test_a_boot_never_heard_takes_the_node_with_it_and_a_live_one_returns() -> None:
    nodes = living()
    assert kinds(nodes.deregistered(NODE, "boot-b", "stopped", 5_000)) == ["node_deregistered"]
    assert nodes.heard(heartbeat(1, "boot-b"), "http", 6_000).verdict is Verdict.IGNORED_OLD
    assert nodes.heard(heartbeat(2), "http", 10_000).verdict is Verdict.CREATED


def test_a_goodbye_that_overtakes_the_greeting_is_remembered() -> None:
    nodes = book()
    assert nodes.deregistered(NODE, "boot-a", "stopped", 0) == [DropNode(NODE)]
    assert nodes.deregistered(NODE, "boot-b", "stopped", 1) == [DropNode(NODE)]
    for boot_id in ("boot-a", "boot-b"):
        assert nodes.registered(registration(boot_id=boot_id), "http", 90_001) == []
    assert nodes.heard(heartbeat(1), "http", 90_002).verdict is Verdict.CREATED


def test_what_is_remembered_of_departed_nodes_is_bounded() -> None:
    nodes = NodeBook(Limits(), nodes_max=1)
    for number in range(3):
        nodes.heard(heartbeat(1, node_id=f"gpu-{number}"), "http", 0)
        nodes.deregistered(NodeId(f"gpu-{number}"), "boot-a", "stopped", 0)
    assert nodes.heard(heartbeat(2, node_id="gpu-2"), "http", 1).verdict is Verdict.IGNORED_OLD
    assert nodes.heard(heartbeat(2, node_id="gpu-1"), "http", 1).verdict is Verdict.CREATED


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_node_may_change_its_link_and_stays_one_record() -> None:
    nodes = living()
    heard = nodes.heard(heartbeat(2), "amqp", 1)
    assert kinds(heard.effects) == ["node_link_changed"]
    assert [node.link for node in nodes.nodes()] == ["amqp"]


def test_a_closed_link_disconnects_until_the_next_sign_of_life() -> None:
    nodes = living()
    assert kinds(nodes.link_changed(NODE, "http", 1, connected=False)) == ["node_link_changed"]
    assert not record(nodes).connected
    assert nodes.link_changed(NODE, "http", 2, connected=False) == []
    assert kinds(nodes.heard(heartbeat(2), "http", 3).effects) == ["node_link_changed"]
    assert record(nodes).connected
    nodes.link_changed(NODE, "http", 4, connected=False)
    nodes.link_changed(NODE, "grpc", 5, connected=True)
    assert (record(nodes).connected, record(nodes).link) == (True, "grpc")


def test_the_end_of_a_link_left_behind_or_of_a_stranger_means_nothing() -> None:
    nodes = living()
    assert nodes.link_changed(NODE, "amqp", 1, connected=False) == []
    assert nodes.link_changed(NodeId("stranger"), "http", 1, connected=True) == []


def test_an_open_link_alone_does_not_raise_the_dead() -> None:
    nodes = living()
    nodes.tick(HOUR_MS)
    nodes.link_changed(NODE, "http", HOUR_MS, connected=True)
    assert not record(nodes).connected


# --- people ----------------------------------------------------------------------------------------------------------


def test_draining_is_told_once() -> None:
    nodes = living()
    assert kinds(nodes.set_draining(NODE, 1, draining=True)) == ["node_draining_changed"]
    assert kinds(nodes.set_draining(NODE, 2, draining=True)) == []
    assert record(nodes).draining
    with pytest.raises(NodeNotFound):
        nodes.set_draining(NodeId("stranger"), 1, draining=True)


def test_a_node_whose_record_was_lost_stays_drained_until_somebody_decides() -> None:
    nodes = book()
    nodes.registered(registration(), "http", 0)
    nodes.heard(heartbeat(1, draining=True), "http", 1)
    assert record(nodes).draining
    nodes.set_draining(NODE, 2, draining=False)
    nodes.heard(heartbeat(2, draining=True), "http", 3)
    assert not record(nodes).draining


def test_a_deleted_node_comes_back_with_its_next_heartbeat() -> None:
    nodes = living()
    effects = nodes.forget(NODE, 1)
    assert effects[0] == DropNode(NODE)
    assert kinds(effects) == ["node_forgotten"]
    assert nodes.heard(heartbeat(2), "http", 2).verdict is Verdict.CREATED
    with pytest.raises(NodeNotFound, match="stranger"):
        nodes.forget(NodeId("stranger"), 1)


# --- silence ---------------------------------------------------------------------------------------------------------


def test_silence_leads_from_late_to_stale_to_dead_to_forgotten() -> None:
    nodes = living()
    assert not nodes.is_late(record(nodes), 30_000)
    assert nodes.is_late(record(nodes), 30_001)
    assert nodes.tick(40_000) == []
    stale = nodes.tick(41_000)
    assert kinds(stale) == ["node_stale"]
    assert record(nodes).reason == "no heartbeat for 41 s, one was due every 10 s"
    assert record(nodes).connected
    assert nodes.tick(100_000) == []
    assert kinds(nodes.tick(100_001)) == ["node_dead"]
    assert (record(nodes).connected, record(nodes).phase) == (False, Phase.OFFLINE)
    assert nodes.tick(100_000 + HOUR_MS) == []
    forgotten = nodes.tick(100_001 + HOUR_MS)
    assert forgotten[0] == DropNode(NODE)
    assert kinds(forgotten) == ["node_forgotten"]
    assert nodes.nodes() == []


def test_a_late_tick_finds_a_node_dead_at_once() -> None:
    nodes = living()
    assert kinds(nodes.tick(HOUR_MS)) == ["node_dead"]


def test_a_registered_node_that_never_speaks_goes_the_same_way() -> None:
    nodes = book()
    nodes.registered(registration(), "http", 0)
    assert kinds(nodes.tick(40_001)) == ["node_stale"]


def test_each_node_is_measured_by_its_own_interval() -> None:
    nodes = living()
    nodes.heard(heartbeat(1, node_id="slow", heartbeat_interval_s=60.0), "http", 0)
    assert [event.key for event in events(nodes.tick(200_000))] == [NODE]


def test_fixed_times_hold_for_all() -> None:
    nodes = book(stale_after_s=5.0, dead_after_s=6.0)
    nodes.heard(heartbeat(1), "http", 0)
    assert kinds(nodes.tick(5_001)) == ["node_stale"]
    assert kinds(nodes.tick(6_001)) == ["node_dead"]


@pytest.mark.parametrize("silence_ms", [41_000, HOUR_MS])
def test_a_heartbeat_brings_a_lost_node_back_with_nothing_to_restart(silence_ms: int) -> None:
    nodes = living()
    nodes.tick(silence_ms)
    heard = nodes.heard(heartbeat(2), "http", silence_ms)
    node = record(nodes)
    assert kinds(heard.effects)[0] == "node_recovered"
    assert (node.health, node.phase, node.connected, node.reason) == (Health.HEALTHY, Phase.READY, True, None)
    assert nodes.tick(silence_ms + 10_000) == []


def test_an_agents_clock_that_is_hours_wrong_has_no_say() -> None:
    nodes = living(now_ms=HOUR_MS)
    nodes.heard(heartbeat(2), "http", 0)  # even when our own clock is set back
    assert record(nodes).last_seen_ms == 0
    assert nodes.tick(40_000) == []
    assert kinds(nodes.tick(40_001)) == ["node_stale"]


# --- a restart of the control plane ----------------------------------------------------------------------------------


def test_nobody_dies_of_the_control_planes_own_absence() -> None:
    before = record(living())
    nodes = book()
    assert nodes.load([before], HOUR_MS) == []
    assert record(nodes) is before
    assert nodes.tick(HOUR_MS + 40_000) == []
    assert not nodes.is_late(before, HOUR_MS + 30_000)
    assert kinds(nodes.tick(HOUR_MS + 40_001)) == ["node_stale"]


def test_after_a_restart_heartbeats_go_on_where_they_were() -> None:
    first = living()
    first.heard(heartbeat(1, "boot-b"), "http", 1_000)
    nodes = book()
    nodes.load(first.nodes(), 2_000)
    assert nodes.heard(heartbeat(1, "boot-b"), "http", 3_000).verdict is Verdict.IGNORED_OLD
    assert nodes.heard(heartbeat(9, "boot-a"), "http", 3_000).verdict is Verdict.IGNORED_OLD
    assert nodes.heard(heartbeat(2, "boot-b"), "http", 3_000).verdict is Verdict.KNOWN


def test_a_record_not_in_the_book_is_late_by_its_own_word() -> None:
    node = record(living())
    assert book().is_late(node, 30_001)
    assert not book().is_late(node, 30_000)


# --- workers ---------------------------------------------------------------------------------------------------------


def test_workers_under_a_foreign_name_are_refused_and_told_of_once() -> None:
    nodes = living()
    foreign = worker(0, name="unknown-worker-0")
    misnumbered = worker(1, name="gpu-1-worker-7")
    heard = nodes.heard(heartbeat(2, workers=(worker(0), foreign, misnumbered)), "http", 1)
    assert record(nodes).workers == (worker(0),)
    assert [event.data["worker_id"] for event in events(heard.effects) if event.kind == "worker_refused"] == [
        "gpu-1-worker-7",
        "unknown-worker-0",
    ]
    again = nodes.heard(heartbeat(3, workers=(worker(0), foreign, misnumbered)), "http", 2)
    assert kinds(again.effects) == []


def test_a_worker_named_twice_is_one_worker() -> None:
    nodes = living()
    nodes.heard(heartbeat(2, workers=(worker(0), worker(0, WorkerStatus.BUSY))), "http", 1)
    assert record(nodes).workers == (worker(0, WorkerStatus.BUSY),)


def test_facts_follow_the_newest_heartbeat() -> None:
    nodes = living()
    nodes.heard(heartbeat(2, facts=facts(address="10.0.0.9")), "http", 1)
    assert record(nodes).facts.address == "10.0.0.9"
