"""What a person is told when `muster up` cannot do what it should: one sentence, one next step, no traceback."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.muster_process import ControlPlane, free_port
from tests.waiting import eventually_sync

TIMEOUT_S = 90


def run_up(folder: Path, *, prefix: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    base = {
        "HOME": str(folder),
        "MUSTER_DATA_DIR": str(folder / "data"),
        "MUSTER_LISTEN": f"127.0.0.1:{free_port()}",
        "MUSTER_GRPC_LISTEN": "none",
        "MUSTER_MODEL": "none",
        "MUSTER_DISCOVER": "false",
    }
    return subprocess.run(
        [*prefix, sys.executable, "-m", "muster.cli.main", "up"],
        env=clean | base | env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def assert_told(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Next: " in ran.stderr
    for word in words:
        assert word in ran.stderr, ran.stderr


def in_mount_namespace(mount: str, folder: Path) -> tuple[str, ...]:
    """Run a command where `folder` is mounted differently, for this command alone."""
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} "{folder}" && exec "$@"', "sh")


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "first", "up", env={"MUSTER_MODEL": "none", "MUSTER_DISCOVER": "false"})
    plane.start()
    yield plane
    plane.stop()


def test_a_second_up_says_that_it_runs_and_changes_nothing(idle: ControlPlane) -> None:
    eventually_sync((idle.data_dir / "muster.json").exists, 30)
    ran = run_up(idle.folder, MUSTER_DATA_DIR=str(idle.data_dir))
    assert ran.returncode == 0
    assert idle.url in ran.stdout
    assert f"pid {idle.pid}" in ran.stdout
    assert idle.get("/health")["status"] == "ok"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert_told(run_up(tmp_path, MUSTER_LISTEN=f"127.0.0.1:{port}"), f"127.0.0.1:{port}", "--listen")


def test_a_taken_grpc_port_that_was_asked_for_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        assert_told(run_up(tmp_path, MUSTER_GRPC_LISTEN=address), address, "gRPC", "MUSTER_GRPC_LISTEN")


def test_a_read_only_data_directory_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    prefix = in_mount_namespace("mount -t tmpfs -o ro tmpfs", folder)
    assert_told(run_up(tmp_path, prefix=prefix), str(folder), "--data-dir")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    prefix = in_mount_namespace("mount -t tmpfs -o size=64k tmpfs", folder)
    assert_told(run_up(tmp_path, prefix=prefix), str(folder), "full")


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    assert_told(run_up(tmp_path, MUSTER_LISTNE="x"), "MUSTER_LISTNE", "MUSTER_LISTEN")


def test_an_open_address_without_a_token_is_refused(tmp_path: Path) -> None:
    assert_told(run_up(tmp_path, MUSTER_LISTEN=f"0.0.0.0:{free_port()}"), "without a token", "MUSTER_TOKEN")


def test_a_model_that_is_not_there_is_said_and_the_rest_runs(tmp_path: Path) -> None:
    env = {"MUSTER_MODEL": str(tmp_path / "none.gguf"), "MUSTER_DISCOVER": "false"}
    plane = ControlPlane(tmp_path, "up", env=env)
    plane.start()
    try:
        node = eventually_sync(lambda: next(iter(plane.get("/api/v1/nodes")), None), 30)
        assert node is not None
        reason = eventually_sync(lambda: plane.get("/api/v1/nodes")[0]["reason"], 30)
        assert "none.gguf" in reason
        assert plane.get("/api/v1/nodes")[0]["health_status"] == "degraded"
        job_id = plane.post("/api/jobs", {"type": "simulation", "payload": {"duration_ms": 1}})["job_id"]
        eventually_sync(lambda: plane.job(job_id)["status"] == "completed", 30)
    finally:
        assert plane.stop() == 0


def test_without_a_network_the_rest_runs_and_the_way_to_a_model_is_named(tmp_path: Path) -> None:
    env = {
        "MUSTER_DISCOVER": "false",
        "MUSTER_ARTIFACT_DIR": str(tmp_path / "artifacts"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
    }
    plane = ControlPlane(tmp_path, "up", env=env)
    plane.start()
    try:
        reason = eventually_sync(lambda: (plane.get("/api/v1/nodes") or [{"reason": None}])[0]["reason"], 60)
        assert "smollm2-135m" in reason
    finally:
        assert plane.stop() == 0
