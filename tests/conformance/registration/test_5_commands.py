"""Phase 5: commands reach the worker over the broker."""

from functools import partial

from tests.conformance.registration.conftest import NODE, Fleet
from tests.waiting import eventually_sync


def is_done(fleet: Fleet, command_id: str) -> bool:
    return bool(fleet.plane.get(f"/api/v1/commands/{command_id}")["state"] == "done")


def test_5_1_a_status_command_is_taken_and_answered(fleet: Fleet) -> None:
    for word in ({"command": "status"}, {"type": "STATUS"}, {"type": "COMMAND_TYPE_STATUS"}):
        command_id = fleet.plane.post("/api/v1/command", {"node_id": NODE} | word)["command_id"]
        eventually_sync(partial(is_done, fleet, command_id), 30)
        assert fleet.plane.get(f"/api/v1/commands/{command_id}")["result"]["phase"] == "ready"
    line = next(line for line in fleet.plane.log.splitlines() if "command_" in line and NODE in line)
    assert "status" in line


def test_5_2_a_shutdown_command_ends_the_agent_and_its_record(own_fleet: Fleet) -> None:
    worker = own_fleet.worker()
    own_fleet.wait_until_healthy()
    body = {"node_id": NODE, "command": "shutdown", "args": {"reason": "checklist"}}
    assert own_fleet.plane.post("/api/v1/command", body)["command_id"]
    assert worker.wait(30) == 0
    assert "checklist" in worker.log
    eventually_sync(lambda: own_fleet.plane.get("/api/v1/nodes") == [], 30)
