from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from muster.client import AsyncClient
from tests.integration.api.conftest import Served, serving
from tests.muster_process import ControlPlane
from tests.valkey_server import ValkeyServer

QUICK = {"MUSTER_HEARTBEAT_INTERVAL_S": "1", "MUSTER_MODEL": "none", "NUM_GPUS": "2"}


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
def fleet(tmp_path: Path) -> Iterator[ControlPlane]:
    """Run a real Muster with two workers of its own."""
    plane = ControlPlane(tmp_path / "fleet", "up", env=QUICK)
    plane.start()
    yield plane
    plane.kill()


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    server = ValkeyServer("valkey")
    server.start()
    yield server
    server.remove()
