"""SIGKILL of an agent that runs a service, with real processes throughout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import FAST
from tests.integration.agent.services import alive
from tests.muster_process import ControlPlane, MusterProcess
from tests.waiting import eventually_sync

NODE_FILE = f"""
[[service]]
name = "smol"
connector = "ollama"
command = ["{{python}}", "{Path(__file__).parent / "model_server.py"}", "{{port}}", "--model", "smol"]
stop_timeout_s = 2
"""


@pytest.fixture
def agent(tmp_path: Path, plane: ControlPlane) -> Iterator[MusterProcess]:
    (tmp_path / "node.toml").write_text(NODE_FILE)
    env = FAST | {
        "MUSTER_CONTROL_PLANE": plane.url,
        "MUSTER_NODE_ID": "gpu-1",
        "MUSTER_NODE_FILE": str(tmp_path / "node.toml"),
        "MUSTER_DATA_DIR": str(tmp_path / "agent" / "data"),
    }
    agent = MusterProcess(tmp_path / "agent", "agent", env=env)
    yield agent
    agent.kill()


def running(plane: ControlPlane) -> dict[str, Any] | None:
    """Return the service as the node tells of it, once it runs and its figures are known."""
    services = plane.get("/api/v1/nodes/gpu-1")["services"]
    return next((each for each in services if each["status"] == "running" and each["figures"]), None)


def boots(plane: ControlPlane) -> int:
    events = plane.get("/api/events?limit=1000")["events"]
    return sum(event["kind"] == "startup_complete" for event in events)


def test_a_killed_agent_finds_its_service_as_it_was(plane: ControlPlane, agent: MusterProcess) -> None:
    agent.env["MUSTER_ADOPT_WITHIN_S"] = "60"
    agent.start()
    before = eventually_sync(lambda: running(plane), 30)
    assert before is not None
    assert before["figures"]["model"] == "smol"
    assert before["figures"]["rss_mb"] > 1
    agent.kill()
    assert alive(before["pid"])
    agent.start()
    eventually_sync(lambda: boots(plane) == 2, 30)
    after = eventually_sync(lambda: running(plane), 30)
    assert after is not None
    assert (after["pid"], after["url"], after["restarts"]) == (before["pid"], before["url"], 0)
    assert agent.stop() == 0
    assert not alive(before["pid"])


def test_a_killed_agent_that_does_not_come_back_takes_its_service_with_it(
    plane: ControlPlane, agent: MusterProcess
) -> None:
    agent.env["MUSTER_ADOPT_WITHIN_S"] = "0.5"
    agent.start()
    before = eventually_sync(lambda: running(plane), 30)
    assert before is not None
    agent.kill()
    eventually_sync(lambda: not alive(before["pid"]), 20)
