"""SIGKILL of each process in turn, with work queued and running."""

from collections import Counter
from typing import Any

import psutil

from tests.faults.conftest import StartAgent
from tests.muster_process import ControlPlane
from tests.waiting import eventually_sync

TERMINAL = {"completed", "failed", "cancelled", "timeout"}


def submit(plane: ControlPlane, count: int, duration_ms: int) -> list[str]:
    job = {"service_required": "simulation", "payload": {"duration_ms": duration_ms, "steps": 2}}
    return [plane.post("/api/jobs", job)["job_id"] for _ in range(count)]


def count(plane: ControlPlane, *statuses: str) -> int:
    counts = plane.get("/api/v1/stats")["jobs"]
    return sum(int(counts[status]) for status in statuses)


def health(plane: ControlPlane) -> dict[str, str]:
    return {node["node_id"]: node["health_status"] for node in plane.get("/api/v1/nodes")}


def all_events(plane: ControlPlane) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    after = "0"
    while page := plane.get(f"/api/events?limit=1000&after={after}")["events"]:
        events += page
        after = page[-1]["id"]
    return events


def completions(plane: ControlPlane) -> Counter[str]:
    done = [event for event in all_events(plane) if event["kind"] == "job_completed"]
    return Counter(job_id for event in done for job_id in event["ids"] or [event["key"]])


def assert_each_completed_once(plane: ControlPlane, job_ids: list[str]) -> None:
    eventually_sync(lambda: count(plane, "completed") == len(job_ids), 60)
    assert [plane.job(job_id)["status"] for job_id in job_ids] == ["completed"] * len(job_ids)
    assert completions(plane) == Counter(job_ids)


def test_jobs_end_once_and_nodes_return_after_the_control_plane_was_killed(
    plane: ControlPlane, start_agent: StartAgent
) -> None:
    agents = [start_agent("node-a"), start_agent("node-b")]
    eventually_sync(lambda: health(plane) == {"node-a": "healthy", "node-b": "healthy"}, 30)
    job_ids = submit(plane, 40, duration_ms=300)
    eventually_sync(lambda: count(plane, "completed") >= 4 and count(plane, "assigned", "in_progress") >= 2, 30)

    plane.kill()
    plane.start()

    assert_each_completed_once(plane, job_ids)
    eventually_sync(lambda: health(plane) == {"node-a": "healthy", "node-b": "healthy"}, 30)
    assert all(agent.running for agent in agents)


def test_lesson_jobs_of_a_killed_agent_end_elsewhere(plane: ControlPlane, start_agent: StartAgent) -> None:
    victim = start_agent("victim")
    start_agent("survivor")
    eventually_sync(lambda: health(plane) == {"victim": "healthy", "survivor": "healthy"}, 30)
    job_ids = submit(plane, 4, duration_ms=5000)  # both run two
    eventually_sync(lambda: count(plane, "assigned", "in_progress") == 4, 30)
    lost = {job_id for job_id in job_ids if plane.job(job_id)["worker_id"] == "victim-worker-0"}
    assert len(lost) == 2

    victim.kill()

    assert_each_completed_once(plane, job_ids)
    jobs = [plane.job(job_id) for job_id in job_ids]
    assert {job["worker_id"] for job in jobs} == {"survivor-worker-0"}
    assert {job["job_id"] for job in jobs if job["attempt"] == 2} == lost


def test_lesson_a_frozen_agent_that_thaws_late_does_not_end_a_job_twice(
    plane: ControlPlane, start_agent: StartAgent
) -> None:
    frozen = start_agent("frozen")
    eventually_sync(lambda: health(plane) == {"frozen": "healthy"}, 30)
    job_ids = submit(plane, 2, duration_ms=5000)
    eventually_sync(lambda: count(plane, "assigned", "in_progress") == 2, 30)
    frozen.freeze()
    start_agent("other")
    assert_each_completed_once(plane, job_ids)

    frozen.thaw()

    eventually_sync(lambda: health(plane)["frozen"] == "healthy", 30)
    more = submit(plane, 4, duration_ms=100)
    assert_each_completed_once(plane, job_ids + more)


def test_nothing_acknowledged_is_lost_when_the_embedded_valkey_is_killed(
    plane: ControlPlane, start_agent: StartAgent
) -> None:
    start_agent("node-a")
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)
    job_ids = submit(plane, 20, duration_ms=200)
    eventually_sync(lambda: count(plane, "completed") >= 2, 30)

    (server,) = [
        child for child in psutil.Process(plane.pid).children(recursive=True) if "valkey-server" in child.name()
    ]
    server.kill()

    job_ids += eventually_sync(lambda: submit(plane, 1, duration_ms=50), 30)
    assert_each_completed_once(plane, job_ids)
    assert plane.running


def test_a_killed_agent_comes_back_as_the_same_node(plane: ControlPlane, start_agent: StartAgent) -> None:
    first = start_agent("node-a")
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)
    first.kill()
    first.start()
    eventually_sync(lambda: any(event["kind"] == "node_rebooted" for event in all_events(plane)), 30)
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)
    (job_id,) = submit(plane, 1, duration_ms=10)
    assert_each_completed_once(plane, [job_id])


def test_lesson_a_clean_stop_of_an_agent_returns_its_jobs_and_leaves_the_lists(
    plane: ControlPlane, start_agent: StartAgent
) -> None:
    leaving = start_agent("leaving")
    eventually_sync(lambda: health(plane) == {"leaving": "healthy"}, 30)
    (job_id,) = submit(plane, 1, duration_ms=60_000)
    eventually_sync(lambda: count(plane, "assigned", "in_progress") == 1, 30)

    assert leaving.stop() == 0

    assert health(plane) == {}
    job = plane.job(job_id)
    assert (job["status"], job["retry_count"]) == ("unworkable", 0)
