"""The fleet of the checklist: a real broker, a control plane, a GPU worker that speaks over the broker."""

import base64
import itertools
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.rabbitmq import PASSWORD, USER, VHOST, RabbitMq
from tests.waiting import eventually_sync

NODE = "i-0abc1234def567890"
NEBULA_IP = "10.42.0.7"
INTERVAL_S = 1.0
# Everything that waits is made short; the rules are the same.
FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": str(INTERVAL_S),
    "MUSTER_STALE_AFTER_S": "2.5",
    "MUSTER_DEAD_AFTER_S": "5",
    "MUSTER_STOP_TIMEOUT_S": "1",
}

_numbers = itertools.count(1)


class Fleet:
    """A control plane on a vhost of a broker, and workers as the checklist boots them."""

    def __init__(self, folder: Path, broker: RabbitMq, vhost: str) -> None:
        self.folder = folder
        self.broker = broker
        self.vhost = vhost
        self.broker_url = f"{broker.url}/{vhost}"
        self.grpc_port = free_port()
        self.plane = ControlPlane(
            folder / "plane",
            env=FAST | {"MUSTER_RABBITMQ_URL": self.broker_url, "MUSTER_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}"},
        )
        self._workers: list[MusterProcess] = []

    def start(self) -> "Fleet":
        self.plane.start()
        eventually_sync(lambda: "agents.registration" in [found["name"] for found in self.broker_has("exchanges")], 60)
        return self

    def remove(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.plane.kill()

    def broker_has(self, kind: str) -> Any:
        """Ask the broker's management API for exchanges, queues or bindings."""
        return managed(self.broker, "GET", f"/api/{kind}/{self.vhost}")

    def worker(self, node_id: str = NODE, env: Mapping[str, str] | None = None) -> MusterProcess:
        """Start an agent as /etc/worker-agent/env configures it."""
        worker = MusterProcess(
            self.folder / node_id,
            "agent",
            env=FAST
            | {
                "RABBITMQ_URL": self.broker_url,
                "CONTROL_PLANE_ADDR": self.plane.url,
                "MUSTER_LINK": "amqp",
                "INSTANCE_ID": node_id,
                "NODE_TYPE": "gpu-worker",
                "NEBULA_IP": NEBULA_IP,
                "NUM_GPUS": "1",
                "MUSTER_DATA_DIR": str(self.folder / node_id / "data"),
            }
            | dict(env or {}),
        )
        self._workers.append(worker)
        return worker.start()

    def node(self, node_id: str = NODE) -> dict[str, Any]:
        return next((node for node in self.plane.get("/api/v1/nodes") if node["id"] == node_id), {})

    def wait_until_healthy(self, node_id: str = NODE, timeout_s: float = 60) -> None:
        eventually_sync(lambda: self.node(node_id).get("health_status") == "healthy", timeout_s)


def managed(broker: RabbitMq, method: str, path: str, body: Any = None) -> Any:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{broker.management_port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


@contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet.start()
    finally:
        fleet.remove()


@contextmanager
def running_broker(folder: Path) -> Iterator[RabbitMq]:
    broker = RabbitMq(folder, management=True)
    try:
        yield broker.start()
    finally:
        broker.remove()


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture(scope="package")
def fleet(broker: RabbitMq, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker, healthy. For tests that only look."""
    with running(Fleet(tmp_path_factory.mktemp("fleet"), broker, VHOST)) as fleet:
        fleet.worker()
        fleet.wait_until_healthy()
        yield fleet


@pytest.fixture
def own_fleet(broker: RabbitMq, tmp_path: Path) -> Iterator[Fleet]:
    """On a vhost of its own, for tests that break the control plane or the worker."""
    vhost = f"own-{next(_numbers)}"
    managed(broker, "PUT", f"/api/vhosts/{vhost}")
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    managed(broker, "PUT", f"/api/permissions/{vhost}/{USER}", everything)
    with running(Fleet(tmp_path, broker, vhost)) as fleet:
        yield fleet
    managed(broker, "DELETE", f"/api/vhosts/{vhost}")


@pytest.fixture
def fleet_with_own_broker(tmp_path: Path) -> Iterator[Fleet]:
    with running_broker(tmp_path / "broker") as broker, running(Fleet(tmp_path, broker, VHOST)) as fleet:
        yield fleet
