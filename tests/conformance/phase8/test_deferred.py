"""What the older suite put off until there would be machines: the broker killed, the disk full."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, MusterProcess
from tests.rabbitmq import RabbitMq
from tests.waiting import eventually_sync

FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "1",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_GRPC_LISTEN": "none",
}
WORK = {"type": "simulation", "payload": {"duration_ms": 10, "text": "a word or two"}}
DISK_MB = 24


def health(plane: ControlPlane) -> dict[str, str]:
    return {node["node_id"]: node["health_status"] for node in plane.get("/api/v1/nodes")}


def completed(plane: ControlPlane, job_ids: list[str]) -> bool:
    return all(plane.job(job_id)["status"] == "completed" for job_id in job_ids)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitMq]:
    broker = RabbitMq(tmp_path / "broker")
    try:
        yield broker.start()
    finally:
        broker.remove()


def test_work_goes_on_while_the_broker_is_killed_and_its_nodes_return(tmp_path: Path, broker: RabbitMq) -> None:
    plane = ControlPlane(tmp_path / "plane", env=FAST | {"MUSTER_RABBITMQ_URL": broker.url})
    agents = [
        MusterProcess(
            tmp_path / link,
            "agent",
            env=FAST
            | {
                "MUSTER_NODE_ID": f"over-{link}",
                "MUSTER_LINK": link,
                "MUSTER_RABBITMQ_URL": broker.url,
                "MUSTER_CONTROL_PLANE": plane.url,
                "MUSTER_DATA_DIR": str(tmp_path / link / "data"),
            },
        )
        for link in ("http", "amqp")
    ]
    both_healthy = {"over-http": "healthy", "over-amqp": "healthy"}
    try:
        plane.start()
        for agent in agents:
            agent.start()
        eventually_sync(lambda: health(plane) == both_healthy, 60)
        broker.kill()
        job_ids = [plane.post("/api/jobs", WORK)["job_id"] for _ in range(20)]
        eventually_sync(lambda: completed(plane, job_ids), 30)
        assert health(plane)["over-http"] == "healthy"
        broker.start()
        eventually_sync(lambda: health(plane) == both_healthy, 60)
    finally:
        for process in (*agents, plane):
            process.kill()


class _OnSmallDisk(ControlPlane):
    """Its data directory is a small file system of its own, which only its own processes have mounted."""

    def _command(self) -> list[str]:
        mount = f'mount -t tmpfs -o size={DISK_MB}m tmpfs "{self.data_dir}" && exec "$@"'
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *super()._command()]

    @property
    def disk(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.data_dir}")

    def fill_disk(self) -> None:
        with pytest.raises(OSError, match="No space left"):
            (self.disk / "filler").write_bytes(bytes(DISK_MB * 1024 * 1024))

    def free_disk(self) -> None:
        (self.disk / "filler").unlink()


def refusal(plane: ControlPlane, body: bytes) -> dict[str, Any]:
    """Submit once more; return what is said against it."""
    request = urllib.request.Request(
        f"{plane.url}/api/jobs", data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            return {}
    except urllib.error.HTTPError as error:
        return dict(json.loads(error.read()) | {"status": error.code})


def test_a_full_disk_refuses_work_in_words_and_loses_nothing(tmp_path: Path) -> None:
    plane = _OnSmallDisk(tmp_path / "plane", env=FAST)
    plane.data_dir.mkdir(parents=True)
    body = b'{"type": "simulation", "payload": {"result": "%b"}}' % (b"x" * 100_000)
    try:
        plane.start()
        accepted = [plane.post("/api/jobs", WORK)["job_id"] for _ in range(5)]
        plane.fill_disk()
        told = eventually_sync(lambda: refusal(plane, body), 60)
        assert (told["status"], told["code"], told["retriable"]) == (503, "store_unavailable", True)
        assert "No space left" in told["message"]
        assert plane.get("/health")["status"] == "ok"
        plane.free_disk()
        eventually_sync(lambda: plane.post("/api/jobs", WORK)["success"], 60)
        assert {plane.job(job_id)["status"] for job_id in accepted} == {"unworkable"}  # there is no worker
    finally:
        plane.kill()
