"""What needs real processes: clusters of two and three nodes, engines behind pools, kills, a setting switched off."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.engine import TOKENS, Engine
from tests.muster_process import ControlPlane, MusterProcess
from tests.waiting import eventually, eventually_sync

_FAST = {
    "MUSTER_GRPC_LISTEN": "none",
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_NODE_TIMEOUT_S": "3",
    "MUSTER_JOB_LEASE_S": "2",
    "MUSTER_JOB_SWEEP_S": "0.1",
}
# A node as an older pool manager is one: it knows how to register, and to say once a second how its pool is.
_POOL_MANAGER = """
import json, sys, time, urllib.request
base, node, model, engine, free = sys.argv[1:]
def say(path, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=5))
pool = {"pool_id": "pool-0", "ready": True, "slots_free": int(free), "slots_total": 4, "models_available": [model]}
registered = False
while True:
    try:
        if not registered:
            say("/v2/nodes/register", {"node_id": node, "address": engine, "pools": ["pool-0"], "capabilities": {}})
        say(f"/v2/nodes/{node}/heartbeat", {"pools": [pool]})
        registered = True
    except OSError as error:
        registered = getattr(error, "code", 0) != 404 and registered
    time.sleep(0.3)
"""

StartNode = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "plane", env=_FAST)
    try:
        yield plane.start()
    finally:
        plane.kill()


@pytest.fixture
def start_node(plane: ControlPlane) -> Iterator[StartNode]:
    running: list[subprocess.Popen[bytes]] = []

    def start(node_id: str, model: str, engine: str = "http://10.9.8.7:9200", free: int = 3) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", _POOL_MANAGER, plane.url, node_id, model, engine, str(free)]
        running.append(subprocess.Popen(arguments))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def _place(plane: ControlPlane, model: str) -> str | None:
    chosen = plane.post("/api/v1/explain", {"model": model})["chosen"]
    return None if chosen is None else str(chosen).split("/")[0]


def _statuses(plane: ControlPlane) -> dict[str, str]:
    return {node["node_id"]: node["status"] for node in plane.get("/v2/nodes")["nodes"]}


def _follow(plane: ControlPlane, task: dict[str, Any]) -> list[tuple[str, Any]]:
    with urllib.request.urlopen(plane.url + task["streams"]["sse"], timeout=30) as stream:
        lines = [line.decode().rstrip() for line in stream]
    names = [line[7:] for line in lines if line.startswith("event: ")]
    return list(zip(names, [json.loads(line[6:]) for line in lines if line.startswith("data: ")], strict=True))


def test_two_nodes_by_separate_processes(plane: ControlPlane, start_node: StartNode) -> None:
    start_node("node-1", "model-a")
    start_node("node-2", "model-b")
    eventually_sync(lambda: _statuses(plane) == {"node-1": "Online", "node-2": "Online"})
    assert (_place(plane, "model-a"), _place(plane, "model-b")) == ("node-1", "node-2")
    assert plane.get("/v2/catalog/availability")["single_node_models"] == ["model-a", "model-b"]


def test_three_nodes_and_the_kill_of_one(plane: ControlPlane, start_node: StartNode) -> None:
    victim = start_node("node-1", "model-a", free=4)
    start_node("node-2", "model-a", free=3)
    start_node("node-3", "model-a", free=2)
    eventually_sync(lambda: list(_statuses(plane).values()) == ["Online"] * 3)
    assert _place(plane, "model-a") == "node-1"
    victim.kill()  # it leaves placement after the timeout that was set, and the look that follows
    eventually_sync(lambda: _place(plane, "model-a") == "node-2")
    eventually_sync(lambda: _statuses(plane)["node-1"] == "Offline")


def test_a_frozen_node_is_offline_and_comes_back_by_itself(plane: ControlPlane, start_node: StartNode) -> None:
    """Silence is all that a partition is to the control plane."""
    node = start_node("node-1", "model-a")
    eventually_sync(lambda: _place(plane, "model-a") == "node-1")
    os.kill(node.pid, signal.SIGSTOP)
    eventually_sync(lambda: _statuses(plane) == {"node-1": "Offline"})
    eventually_sync(lambda: _place(plane, "model-a") is None)
    os.kill(node.pid, signal.SIGCONT)
    eventually_sync(lambda: _place(plane, "model-a") == "node-1")


def test_a_kill_of_the_control_plane_loses_no_node(plane: ControlPlane, start_node: StartNode) -> None:
    start_node("node-1", "model-a")
    eventually_sync(lambda: _place(plane, "model-a") == "node-1")
    plane.kill()
    plane.start()
    eventually_sync(lambda: _place(plane, "model-a") == "node-1")
    assert plane.get("/v2/nodes")["count"] == 1


def test_a_task_goes_on_when_its_worker_is_killed(plane: ControlPlane, tmp_path: Path) -> None:
    agents = [
        MusterProcess(
            tmp_path / name,
            "agent",
            env=_FAST
            | {"MUSTER_CONTROL_PLANE": plane.url, "MUSTER_NODE_ID": name, "MUSTER_DATA_DIR": str(tmp_path / name)},
        )
        for name in ("node-1", "node-2")
    ]
    try:
        agents[0].start()
        long = {"engine": "simulation", "prompt": "one two three", "params": {"duration_ms": 60_000, "steps": 1}}
        task = plane.post("/v2/tasks", long)
        eventually_sync(lambda: plane.job(task["task_id"])["status"] == "in_progress", 30.0)
        agents[0].kill()
        agents[1].start()
        eventually_sync(lambda: plane.job(task["task_id"])["worker_id"] == "node-2-worker-0", 30.0)
        request = urllib.request.Request(f"{plane.url}/v2/tasks/{task['task_id']}/cancel", method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 204
        assert [name for name, _ in _follow(plane, task)] == ["started", "error"]
    finally:
        for agent in agents:
            agent.kill()


async def test_a_task_for_a_model_that_only_a_pool_has_is_done_by_its_engine(
    plane: ControlPlane, start_node: StartNode
) -> None:
    async with Engine() as engine:
        start_node("node-1", "model-a", engine=engine.url)
        await eventually(lambda: asyncio.to_thread(lambda: _place(plane, "model-a") == "node-1"))
        task = await asyncio.to_thread(
            plane.post, "/v2/tasks", {"model": "model-a", "prompt": "tell me", "pool": "node-1/pool-0"}
        )
        events = await asyncio.to_thread(_follow, plane, task)
    assert [name for name, _ in events if name != "token"] == ["started", "end"]
    assert "".join(data["t"] for name, data in events if name == "token") == "".join(TOKENS)
    assert events[-1][1]["tokens_out"] == len(TOKENS)
    assert engine.requests[0].json["prompt"] == "tell me"


def test_the_cloud_profile_can_be_switched_off(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path / "plane", env=_FAST | {"MUSTER_CLOUD_PROFILE": "false"})
    try:
        plane.start()
        with pytest.raises(AssertionError, match="503"):
            plane.get("/v2/nodes")
    finally:
        plane.kill()
