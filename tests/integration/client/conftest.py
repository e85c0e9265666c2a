from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from muster.client import AsyncClient
from tests.integration.api.conftest import Served, serving
from tests.muster_process import ControlPlane, MusterProcess
from tests.valkey_server import ValkeyServer

# Everything that waits is made short; the rules are the same.
QUICK = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_GRPC_LISTEN": "none",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_JOB_LEASE_S": "3",
    "MUSTER_JOB_SWEEP_S": "0.1",
    "MUSTER_WORKER_SLOTS": "16",
    "MUSTER_STOP_TIMEOUT_S": "1",
}

StartAgent = Callable[[str, str], MusterProcess]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Serve a control plane in memory behind the real front."""
    async with serving() as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.url, token="", give_up_after_s=5.0) as client:
        yield client


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "plane", env=QUICK)
    plane.start()
    yield plane
    plane.kill()


@pytest.fixture
def planes(tmp_path: Path) -> Iterator[tuple[ControlPlane, ControlPlane]]:
    """Run two control planes on one store."""
    store = ValkeyServer("valkey")
    store.start()
    env = QUICK | {"MUSTER_VALKEY_URL": store.url}
    first, second = (ControlPlane(tmp_path / name, env=env) for name in ("plane-1", "plane-2"))
    try:
        yield first.start(), second.start()
    finally:
        first.kill()
        second.kill()
        store.remove()


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    agents: list[MusterProcess] = []

    def start(node_id: str, url: str) -> MusterProcess:
        env = QUICK | {
            "MUSTER_CONTROL_PLANE": url,
            "MUSTER_NODE_ID": node_id,
            "MUSTER_DATA_DIR": str(tmp_path / node_id / "data"),
        }
        agents.append(MusterProcess(tmp_path / node_id, "agent", env=env).start())
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()
