"""Agents over gRPC, real processes: their streams end, their control plane dies, freezes and comes back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import FAST
from tests.faults.test_kills import all_events, assert_each_completed_once, count, health, submit
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.waiting import eventually_sync

StartAgent = Callable[..., MusterProcess]
BOTH = {"node-a": "healthy", "node-b": "healthy"}


@pytest.fixture
def grpc_port() -> int:
    return free_port()


@pytest.fixture
def start_plane(tmp_path: Path, grpc_port: int) -> Iterator[Callable[..., ControlPlane]]:
    planes: list[ControlPlane] = []

    def start(**env: str) -> ControlPlane:
        grpc = {"MUSTER_GRPC_LISTEN": f"127.0.0.1:{grpc_port}"}
        plane = ControlPlane(tmp_path / "plane", env=FAST | grpc | env)
        planes.append(plane)
        plane.start()
        return plane

    yield start
    for plane in planes:
        plane.kill()


@pytest.fixture
def start_agent(tmp_path: Path, grpc_port: int) -> Iterator[StartAgent]:
    agents: list[MusterProcess] = []

    def start(node_id: str, **env: str) -> MusterProcess:
        base = FAST | {
            "MUSTER_CONTROL_PLANE": f"grpc://127.0.0.1:{grpc_port}",
            "MUSTER_NODE_ID": node_id,
            "MUSTER_DATA_DIR": str(tmp_path / node_id / "data"),
        }
        agent = MusterProcess(tmp_path / node_id, "agent", env=base | env)
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.kill()


def links(plane: ControlPlane) -> set[str]:
    return {node["link"] for node in plane.get("/api/v1/nodes")}


def kinds(plane: ControlPlane, node_id: str) -> list[str]:
    return [event["kind"] for event in all_events(plane) if event["key"] == node_id]


def test_streams_that_the_server_closes_are_reopened_and_neither_nodes_nor_jobs_notice(
    start_plane: Callable[..., ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(MUSTER_GRPC_CONNECTION_AGE_S="1")
    agents = [start_agent("node-a"), start_agent("node-b")]
    eventually_sync(lambda: health(plane) == BOTH, 30)
    job_ids = submit(plane, 30, duration_ms=300)

    eventually_sync(lambda: all(agent.log.count('"link_opened"') >= 4 for agent in agents), 60)

    assert_each_completed_once(plane, job_ids)
    assert health(plane) == BOTH
    assert links(plane) == {"grpc"}
    for node_id in BOTH:
        assert not {"node_link_changed", "node_stale", "node_deregistered", "node_rebooted"} & set(
            kinds(plane, node_id)
        )


def test_grpc_agents_are_back_after_the_control_plane_was_killed_and_their_jobs_end_once(
    start_plane: Callable[..., ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane()
    agents = [start_agent("node-a"), start_agent("node-b")]
    eventually_sync(lambda: health(plane) == BOTH, 30)
    job_ids = submit(plane, 40, duration_ms=300)
    eventually_sync(lambda: count(plane, "completed") >= 4 and count(plane, "assigned", "in_progress") >= 2, 30)

    plane.kill()
    plane.start()

    assert_each_completed_once(plane, job_ids)
    eventually_sync(lambda: health(plane) == BOTH, 30)
    assert all(agent.running and '"link_lost"' in agent.log for agent in agents)


def test_a_control_plane_that_froze_and_thawed_finds_its_grpc_agents_again(
    start_plane: Callable[..., ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane()
    agent = start_agent("node-a")
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)

    plane.freeze()
    eventually_sync(lambda: "control_plane_not_reached" in agent.log, 60)
    plane.thaw()

    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 60)
    (job_id,) = submit(plane, 1, duration_ms=10)
    assert_each_completed_once(plane, [job_id])


def test_a_killed_agent_takes_no_new_work_at_once_and_is_back_with_its_next_heartbeat(
    start_plane: Callable[..., ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(MUSTER_HEARTBEAT_INTERVAL_S="30")
    agent = start_agent("node-a", MUSTER_HEARTBEAT_INTERVAL_S="30")
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)

    agent.kill()  # silence alone would tell in 90 s

    eventually_sync(lambda: plane.get("/api/v1/nodes")[0]["connected"] is False, 20)
    agent.start()
    eventually_sync(lambda: plane.get("/api/v1/nodes")[0]["connected"], 30)
    assert list(health(plane)) == ["node-a"]


def test_a_node_may_change_its_link_and_stays_one_record(
    start_plane: Callable[..., ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane()
    over_grpc = start_agent("node-a")
    eventually_sync(lambda: health(plane) == {"node-a": "healthy"}, 30)
    assert links(plane) == {"grpc"}
    over_grpc.kill()

    start_agent("node-a", MUSTER_CONTROL_PLANE=plane.url)

    eventually_sync(lambda: links(plane) == {"http"} and health(plane) == {"node-a": "healthy"}, 30)
    assert len(plane.get("/api/v1/nodes")) == 1
