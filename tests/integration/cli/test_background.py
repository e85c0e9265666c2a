"""Muster in the background as a person has it: up, status, a second up, down; and what is said when it cannot start.

What is said in the foreground is tested in tests/e2e/test_up_in_trouble.py.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.muster_process import free_port

Muster = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def muster(tmp_path: Path) -> Iterator[Muster]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    own = {
        "HOME": str(tmp_path),
        "MUSTER_DATA_DIR": str(tmp_path / "data"),
        "MUSTER_LISTEN": f"127.0.0.1:{free_port()}",
        "MUSTER_GRPC_LISTEN": "none",
        "MUSTER_MODEL": "none",
        "MUSTER_DISCOVER": "false",
        "MUSTER_NODE_ID": "this-machine",
    }

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "muster.cli.main", *arguments],
            env=clean | own | env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    yield run
    run("down")


def test_it_comes_up_says_where_it_is_and_goes_down_again(muster: Muster, tmp_path: Path) -> None:
    first = muster("up", "--detach")
    assert first.returncode == 0, first.stderr
    found = json.loads(muster("status", "--json").stdout)
    assert found["running"]
    assert found["urls"][0] in first.stdout
    assert f"pid {found['pid']}" in first.stdout
    assert Path(found["log"]) == tmp_path / "data" / "logs" / "muster.log"
    assert found["stats"]["healthy_nodes"] == 1
    parts = {part["name"]: (part["status"], part["pid"]) for part in found["parts"]}
    assert parts["machine this-machine"] == parts["control plane"] == ("running", found["pid"])
    assert parts["store"][0] == "running"
    assert parts["event log"] == ("stopped", None)

    second = muster("up", "--detach")
    assert second.returncode == 0
    assert f"already runs on this data directory: {found['urls'][0]} (pid {found['pid']})" in second.stdout
    assert json.loads(muster("status", "--json").stdout)["pid"] == found["pid"]

    down = muster("down")
    assert down.returncode == 0, down.stderr
    assert not psutil.pid_exists(found["pid"])
    assert muster("status").returncode == 1


def test_commands_find_it_and_work(muster: Muster, tmp_path: Path) -> None:
    assert muster("up", "--detach", "--event-log", str(tmp_path / "events.log")).returncode == 0

    ran = muster("submit", "simulation", "--payload", '{"duration_ms": 100, "steps": 2}', "--wait", "--json")
    assert ran.returncode == 0, ran.stderr
    job = json.loads(ran.stdout)
    assert (job["status"], job["worker_id"]) == ("completed", "this-machine-worker-0")
    assert "this-machine" in muster("nodes").stdout
    assert "is free" not in muster("doctor").stdout
    assert "Muster's own" in muster("doctor").stdout
    assert job["job_id"] in muster("events").stdout
    told = (tmp_path / "events.log").read_text()
    assert '"type":"full_state_snapshot"' in told
    assert job["job_id"] in told


def test_a_taken_port_is_named_with_a_next_step(muster: Muster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = muster("up", "--detach", "--listen", f"127.0.0.1:{port}")

    assert ran.returncode == 1
    assert str(port) in ran.stderr
    assert "Next:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_data_directory_that_cannot_be_is_named_with_a_next_step(muster: Muster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    ran = muster("up", "--detach", "--data-dir", str(tmp_path / "file" / "data"))

    assert ran.returncode == 1
    assert str(tmp_path / "file") in ran.stderr
    assert "Next:" in ran.stderr
    assert "Traceback" not in ran.stderr
