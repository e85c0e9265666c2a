"""Phase 3: a node that is heard is healthy, one that is silent goes stale and then dead."""

from tests.conformance.registration.conftest import NODE, Fleet
from tests.waiting import eventually_sync


def test_3_1_a_healthy_node_is_heard_again_and_again(fleet: Fleet) -> None:
    seen: list[str] = []
    uptimes: list[float] = []
    states: set[str] = set()

    def another_beat() -> bool:
        node = fleet.node()
        if not seen or node["last_seen"] != seen[-1]:
            seen.append(node["last_seen"])
            uptimes.append(node["uptime_seconds"])
            states.add(node["health_status"])
        return len(seen) >= 4

    eventually_sync(another_beat, 30)
    assert seen == sorted(seen)
    assert uptimes == sorted(uptimes)
    assert uptimes[-1] > uptimes[0]
    assert states == {"healthy"}


def facts(fleet: Fleet) -> list[str]:
    """Return what was told so far: facts are written a moment after they are shown."""
    return [event["kind"] for event in fleet.plane.get("/api/events?limit=1000")["events"]]


def test_3_2_a_silent_node_goes_stale_and_then_dead(own_fleet: Fleet) -> None:
    worker = own_fleet.worker()
    own_fleet.wait_until_healthy()
    worker.kill()
    eventually_sync(lambda: own_fleet.node()["health_status"] == "stale", 30)
    eventually_sync(lambda: own_fleet.node()["health_status"] == "dead", 30)
    assert own_fleet.node()["connected"] is False
    eventually_sync(lambda: {"node_stale", "node_dead"} <= set(facts(own_fleet)), 30)
    kinds = facts(own_fleet)
    assert kinds.index("node_stale") < kinds.index("node_dead")


def test_cleanup_a_stopped_worker_leaves_the_list(own_fleet: Fleet) -> None:
    worker = own_fleet.worker()
    own_fleet.wait_until_healthy()
    assert worker.stop() == 0
    eventually_sync(lambda: own_fleet.plane.get("/api/v1/nodes") == [], 30)
    assert NODE not in [node["id"] for node in own_fleet.plane.get("/api/v1/fleet")["nodes"]]
