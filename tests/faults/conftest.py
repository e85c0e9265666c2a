from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.muster_process import ControlPlane, MusterProcess

# Everything that waits is made short; the rules are the same.
FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_JOB_LEASE_S": "2",
    "MUSTER_JOB_SWEEP_S": "0.1",
    "MUSTER_JOB_RETRY_BASE_S": "0.1",
    "MUSTER_WORKER_SLOTS": "2",
    "MUSTER_STOP_TIMEOUT_S": "1",
}

StartAgent = Callable[[str], MusterProcess]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "plane", env=FAST)
    plane.start()
    yield plane
    plane.kill()


@pytest.fixture
def start_agent(tmp_path: Path, plane: ControlPlane) -> Iterator[StartAgent]:
    agents: list[MusterProcess] = []

    def start(node_id: str) -> MusterProcess:
        env = FAST | {
            "MUSTER_CONTROL_PLANE": plane.url,
            "MUSTER_NODE_ID": node_id,
            "MUSTER_DATA_DIR": str(tmp_path / node_id / "data"),
        }
        agent = MusterProcess(tmp_path / node_id, "agent", env=env)
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.kill()
