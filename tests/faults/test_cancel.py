"""Cancelling what runs on a real agent: its service is told, and the slot is free for another job."""

import json
import select
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from tests.integration.connectors.test_whole_way import Comfy
from tests.muster_process import ControlPlane, MusterProcess
from tests.waiting import eventually_sync

# Whoever is not told would notice with its next renewal, a sixth of the lease later: long after these tests gave up.
LEASE_S = 240
ENV = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_JOB_LEASE_S": str(LEASE_S),
    "MUSTER_WORKER_SLOTS": "1",
    "MUSTER_STOP_TIMEOUT_S": "1",
}
NODE_FILE = """
[[http]]
name = "slow"
url = "{url}"
path = "/work"

[[program]]
name = "stubborn"
command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
"""
GIVE_UP_S = 20
GRAPH = {"prompt": {"1": {"class_type": "Wait", "inputs": {}}, "2": {"class_type": "SaveImage", "inputs": {}}}}


class SlowService:
    """Never answers, and notices when whoever asked has gone."""

    def __init__(self) -> None:
        self.begun = Event()
        self.left = Event()
        self.over = Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(204)
                self.end_headers()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                service.begun.set()
                while not service.over.is_set():
                    readable, _, _ = select.select([self.connection], [], [], 0.02)
                    if readable and not self.connection.recv(1, socket.MSG_PEEK):
                        service.left.set()
                        return

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator["SlowService"]:
        thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


class Fleet:
    """A control plane, an agent with one slot, and the services that it has."""

    def __init__(self, plane: ControlPlane, agent: MusterProcess, slow: SlowService, comfy: Comfy) -> None:
        self.plane = plane
        self.agent = agent
        self.slow = slow
        self.comfy = comfy

    def programs(self) -> list[psutil.Process]:
        children = psutil.Process(self.agent.pid).children(recursive=True)
        return [
            child for child in children if child.status() != psutil.STATUS_ZOMBIE and "trap" in str(child.cmdline())
        ]

    def graphs(self) -> list[Any]:
        with urllib.request.urlopen(f"{self.comfy.url}/queue", timeout=5) as answer:
            queue = json.loads(answer.read())
        return [*queue["queue_running"], *queue["queue_pending"]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("cancel")
    comfy = Comfy()
    plane = ControlPlane(folder / "plane", env=ENV)
    with SlowService().serving() as slow:
        node_file = folder / "node.toml"
        node_file.write_text(NODE_FILE.format(url=slow.url))
        own = {
            "MUSTER_CONTROL_PLANE": plane.url,
            "MUSTER_NODE_ID": "n1",
            "MUSTER_NODE_FILE": str(node_file),
            "MUSTER_ATTACH": f"comfyui={comfy.url}",
            "MUSTER_DATA_DIR": str(folder / "agent" / "data"),
        }
        agent = MusterProcess(folder / "agent", "agent", env=ENV | own)
        try:
            comfy.start()
            plane.start()
            agent.start()
            yield Fleet(plane, agent, slow, comfy)
        finally:
            agent.kill()
            plane.kill()
            comfy.kill()


def begun(service: str, fleet: Fleet) -> bool:
    at_work: dict[str, Callable[[], Any]] = {
        "http:slow": fleet.slow.begun.is_set,
        "command:stubborn": fleet.programs,
        "comfyui": fleet.graphs,
    }
    return bool(at_work[service]())


def left_alone(service: str, fleet: Fleet) -> bool:
    rests: dict[str, Callable[[], bool]] = {
        "http:slow": fleet.slow.left.is_set,
        "command:stubborn": lambda: not fleet.programs(),
        "comfyui": lambda: not fleet.graphs(),
    }
    return rests[service]()


@pytest.mark.parametrize(
    ("service", "payload"), [("http:slow", {"method": "POST"}), ("command:stubborn", {}), ("comfyui", GRAPH)]
)
def test_lesson_a_cancel_reaches_the_service_and_the_slot_has_another_job(
    fleet: Fleet, service: str, payload: Any, record_property: Callable[[str, Any], None]
) -> None:
    plane = fleet.plane
    running = plane.post("/api/jobs", {"service_required": service, "payload": payload})["job_id"]
    eventually_sync(lambda: plane.job(running)["status"] == "in_progress" and begun(service, fleet), 60)
    next_one = plane.post("/api/jobs", {"service_required": "simulation", "payload": {"duration_ms": 1}})["job_id"]
    assert plane.job(next_one)["status"] == "pending"

    cancelled = plane.post(f"/api/jobs/{running}/cancel")["job"]

    eventually_sync(lambda: plane.job(next_one)["status"] == "completed", GIVE_UP_S)
    eventually_sync(lambda: left_alone(service, fleet), GIVE_UP_S)
    assert plane.job(running)["status"] == "cancelled"
    record_property("slot_free_ms", plane.job(next_one)["started_at"] - cancelled["completed_at"])
