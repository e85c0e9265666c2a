"""Phase 6: the broker, the control plane and the agent go away and come back."""

from functools import partial

from tests.conformance.registration.conftest import INTERVAL_S, NODE, Fleet
from tests.muster_process import MusterProcess
from tests.waiting import eventually_sync

RECONNECT_S = 30.0  # the longest wait between two attempts, with jitter to spare


def logs_retries(process: MusterProcess) -> bool:
    return "retry_in_s" in process.log


def node_ids(fleet: Fleet) -> list[str]:
    return [node["id"] for node in fleet.plane.get("/api/v1/nodes")]


def test_6_1_both_sides_outlive_a_loss_of_the_broker(fleet_with_own_broker: Fleet) -> None:
    fleet = fleet_with_own_broker
    worker = fleet.worker()
    fleet.wait_until_healthy()
    fleet.broker.stop()
    for process in (worker, fleet.plane):
        eventually_sync(partial(logs_retries, process), 60)
    eventually_sync(lambda: fleet.node()["health_status"] != "healthy", 30)
    fleet.broker.start()
    fleet.wait_until_healthy(timeout_s=RECONNECT_S + 2 * INTERVAL_S + 10)
    assert fleet.node()["connected"] is True
    assert node_ids(fleet) == [NODE]
    assert worker.running


def test_6_2_workers_are_back_after_a_restart_of_the_control_plane(own_fleet: Fleet) -> None:
    worker = own_fleet.worker()
    own_fleet.wait_until_healthy()
    before = own_fleet.node()["last_seen_ms"]
    own_fleet.plane.kill()
    own_fleet.plane.start()
    eventually_sync(lambda: own_fleet.node().get("last_seen_ms", 0) > before, RECONNECT_S)
    own_fleet.wait_until_healthy()
    assert node_ids(own_fleet) == [NODE]
    assert worker.running


def test_6_3_a_killed_agent_comes_back_as_the_same_node(own_fleet: Fleet) -> None:
    worker = own_fleet.worker()
    own_fleet.wait_until_healthy()
    worker.kill()
    eventually_sync(lambda: own_fleet.node()["health_status"] == "stale", 30)
    worker.start()
    own_fleet.wait_until_healthy()
    assert node_ids(own_fleet) == [NODE]


def test_common_issues_a_wrong_broker_url_is_told_in_the_agents_log(own_fleet: Fleet) -> None:
    wrong = own_fleet.broker_url.replace("fleet-secret", "no-such-word")
    worker = own_fleet.worker("i-wrong", env={"RABBITMQ_URL": wrong})
    eventually_sync(lambda: "retry_in_s" in worker.log, 30)
    assert "no-such-word" not in worker.log
    assert "RABBITMQ_URL" in worker.log
    assert worker.running
