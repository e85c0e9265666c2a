"""An agent in a process of its own keeps the files of its jobs, whatever link it has."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.connectors.test_whole_way import content, done, outcome
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.waiting import eventually_sync

NODE_FILE = """
[[program]]
name = "shout"
command = ["tr", "a-z", "A-Z"]

[[program]]
name = "write"
command = ["cp", "/proc/self/status", "{dir}/out.txt"]
keep = ["out.txt"]
"""
TOKEN = "first-token-of-this-fleet"


@pytest.fixture(params=["http", "grpc"])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlPlane]:
    grpc = f"127.0.0.1:{free_port()}"
    limits = {"MUSTER_JOB_RESULT_BYTES_MAX": "2000", "MUSTER_FILE_BYTES_MAX": "50000"}
    plane = ControlPlane(tmp_path / "plane", env=limits | {"MUSTER_TOKEN": TOKEN, "MUSTER_GRPC_LISTEN": grpc})
    node_file = tmp_path / "node.toml"
    node_file.write_text(NODE_FILE)
    links = {
        "http": {"MUSTER_CONTROL_PLANE": plane.url},
        "grpc": {"MUSTER_CONTROL_PLANE": f"grpc://{grpc}", "MUSTER_FILES_URL": plane.url},
    }
    agent = MusterProcess(
        tmp_path / "agent",
        "agent",
        env={
            "MUSTER_TOKEN": TOKEN,
            "MUSTER_NODE_ID": "n1",
            "MUSTER_NODE_FILE": str(node_file),
            "MUSTER_DISCOVER": "false",
            "MUSTER_DATA_DIR": str(tmp_path / "agent" / "data"),
            "MUSTER_STOP_TIMEOUT_S": "1",
        }
        | links[request.param],
    )
    try:
        plane.start()
        agent.start()
        eventually_sync(lambda: len(plane.get("/api/v1/nodes")) == 1, 30)
        yield plane
    finally:
        agent.kill()
        plane.kill()


def test_a_program_there_has_its_input_and_its_files_come_here(plane: ControlPlane) -> None:
    assert done(plane, "command:shout", {"stdin": "hello"}) == "HELLO"
    result = done(plane, "command:write", {})
    (kept,) = result["files"]
    assert content(plane, kept["url"]).startswith(b"Name:\tcp")
    large = done(plane, "command:shout", {"stdin": "hello" * 1000})
    assert json.loads(content(plane, large["result_file"]["url"])) == "HELLO" * 1000
    events = json.dumps(plane.get("/api/events?after=0&limit=1000"))
    assert "result_file" not in events
    assert "HELLO" not in events
    error = outcome(plane, "command:shout", {"stdin": "hello" * 20_000})["error"]
    assert (error["code"], error["retriable"]) == ("result_too_large", False)
    assert "(setting job_result_bytes_max)" in error["message"]
    assert "(setting file_bytes_max)" in error["message"]
