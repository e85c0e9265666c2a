"""The fleet of the checklist: a real broker, a control plane, a GPU worker that speaks over the broker."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.rabbitmq import RabbitMq
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

StartWorker = Callable[..., MusterProcess]


class Fleet:
    """A broker and a control plane, and workers as the checklist boots them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = RabbitMq(folder / "broker", management=True)
        self.grpc_port = free_port()
        self.plane = ControlPlane(
            folder / "plane",
            env=FAST | {"MUSTER_RABBITMQ_URL": self.broker.url, "MUSTER_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}"},
        )
        self._workers: list[MusterProcess] = []

    def start(self) -> "Fleet":
        self.broker.start()
        self.plane.start()
        return self

    def remove(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.plane.kill()
        self.broker.remove()

    def worker(self, node_id: str = NODE, env: Mapping[str, str] | None = None) -> MusterProcess:
        """Start an agent as /etc/worker-agent/env configures it."""
        worker = MusterProcess(
            self.folder / node_id,
            "agent",
            env=FAST
            | {
                "RABBITMQ_URL": self.broker.url,
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


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker, healthy. For tests that only look; what they change they change back."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        fleet.start().worker()
        fleet.wait_until_healthy()
        yield fleet
    finally:
        fleet.remove()


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """For tests that break things."""
    fleet = Fleet(tmp_path)
    try:
        yield fleet.start()
    finally:
        fleet.remove()
