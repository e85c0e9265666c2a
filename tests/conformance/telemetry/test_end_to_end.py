"""The whole way with real processes: a worker, the agent that started it, its control plane, and a queen beside it."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.conformance.telemetry.conftest import Stream
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.waiting import eventually, eventually_sync

MODEL = "llama-3.2-1b"
NODE = "hive-1"
# Answers as an engine with one model does.
WORKER = """
import http.server, json, sys
model = sys.argv[sys.argv.index("--model") + 1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": model, "object": "model"}]}).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
NODE_FILE = f"""
[node]
discover = false

[[service]]
name = "llm"
connector = "openai"
command = ["{{python}}", "worker.py", "{{port}}", "--model", "{MODEL}"]
restarts_max = 50
"""
FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_NODE_TIMEOUT_S": "1.5",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_QUEEN_INTERVAL_S": "0.2",
    "MUSTER_STOP_TIMEOUT_S": "1",
}


class Fleet:
    """A control plane, a queen (another one), and a machine with one worker that both hear of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = ControlPlane(folder / "plane", env=FAST)
        self.queen = ControlPlane(folder / "queen", env=FAST)
        self.agent: MusterProcess | None = None

    def start_agent(self) -> None:
        home = self.folder / "agent"
        data = home / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "worker.py").write_text(WORKER)
        (home / "node.toml").write_text(NODE_FILE)
        self.agent = MusterProcess(
            home,
            "agent",
            env=FAST
            | {
                "MUSTER_NODE_ID": NODE,
                "MUSTER_NODE_FILE": str(home / "node.toml"),
                "MUSTER_DATA_DIR": str(data),
                "MUSTER_ADDRESS": "127.0.0.1",
                "MUSTER_CONTROL_PLANE": self.plane.url,
                "MUSTER_QUEEN_URL": self.queen.url,
            },
        ).start()

    def replace_queen(self) -> None:
        """Kill her, and start one at the same place that has never heard of anybody."""
        self.queen.kill()
        port = self.queen.port
        self.queen = ControlPlane(self.folder / f"queen-{free_port()}", env=FAST)
        self.queen.port, self.queen.url = port, f"http://127.0.0.1:{port}"
        self.queen.env["MUSTER_LISTEN"] = f"127.0.0.1:{port}"
        self.queen.start()

    def stop(self) -> None:
        for process in (self.agent, self.plane, self.queen):
            if process is not None:
                process.kill()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        with ThreadPoolExecutor() as both:
            list(both.map(ControlPlane.start, (fleet.plane, fleet.queen)))
        yield fleet
    finally:
        fleet.stop()


def found(plane: ControlPlane) -> list[dict[str, Any]]:
    return [worker for worker in plane.get(f"/api/v1/workers?model={MODEL}") if worker["node_id"] == NODE]


def service_pid(plane: ControlPlane) -> int | None:
    services = [service for node in plane.get("/api/v1/nodes") for service in node["services"]]
    return next((service["pid"] for service in services if service["status"] == "running"), None)


async def seen(stream: Stream, *, but: int | None = None) -> dict[str, Any]:
    """Wait until the worker is told of, with another pid than that."""
    while True:
        event = await stream.next("hive_telemetry", hive_id=NODE, timeout_s=30)
        for worker in event["workers"]:
            if worker["pid"] not in (None, but) and worker["model"] is not None:
                told: dict[str, Any] = worker
                return told


# The order matters: each begins where the one before ended.


async def test_end_to_end_telemetry_flow(fleet: Fleet) -> None:
    """Spawn, collection, heartbeat, registry and stream with the right model, at the queen and the control plane."""
    async with aiohttp.ClientSession() as client, client.get(f"{fleet.queen.url}/v1/heartbeats/stream") as response:
        fleet.start_agent()
        worker = await seen(Stream(response))
    assert worker["model"] == MODEL
    assert psutil.pid_exists(worker["pid"])
    eventually_sync(lambda: found(fleet.queen) and found(fleet.plane), 3)
    assert service_pid(fleet.queen) == worker["pid"]
    assert [node["link"] for node in fleet.queen.get("/api/v1/nodes")] == ["hive"]
    assert [node["link"] for node in fleet.plane.get("/api/v1/nodes")] == ["http"]


async def test_worker_dies_removed_from_registry(fleet: Fleet) -> None:
    """At the next tick; the one that takes its place is told in its turn, at both and within three seconds."""
    before = service_pid(fleet.queen)
    assert before is not None
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{fleet.queen.url}/v1/heartbeats/stream") as at_queen,
        client.get(f"{fleet.plane.url}/v1/heartbeats/stream") as at_plane,
    ):
        queen, plane = Stream(at_queen), Stream(at_plane)
        os.kill(before, signal.SIGKILL)
        while any(worker["pid"] == before for worker in (await queen.next("hive_telemetry", hive_id=NODE))["workers"]):
            pass
        after = await seen(queen, but=before)
        assert (await seen(plane, but=before))["pid"] == after["pid"]
    await eventually(lambda: service_pid(fleet.queen) == service_pid(fleet.plane) == after["pid"], 3)


def test_queen_restart_recovers(fleet: Fleet) -> None:
    """A queen that knows nobody has the workers three seconds after she is up; the control plane noticed nothing."""
    fleet.replace_queen()
    eventually_sync(lambda: found(fleet.queen), 3)
    assert found(fleet.plane)
    kinds = [event["kind"] for event in fleet.plane.get("/api/events?limit=1000")["events"]]
    assert "queen_not_reached" in kinds
    eventually_sync(lambda: "queen_reached" in str(fleet.plane.get("/api/events?limit=1000")["events"]), 10)


def test_hive_restart_clears_workers(fleet: Fleet) -> None:
    """A hive that died has no workers any more, at the queen and at the control plane."""
    assert fleet.agent is not None
    fleet.agent.kill()
    eventually_sync(lambda: not found(fleet.queen) and not found(fleet.plane), 20)
    assert fleet.queen.get("/api/v1/workers?status=idle") == []
