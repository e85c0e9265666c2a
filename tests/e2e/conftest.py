from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.muster_process import ControlPlane

# Kept between runs: 98 MB that need not be fetched each time.
ARTIFACTS = Path(__file__).parents[2] / ".cache" / "artifacts"


@pytest.fixture(scope="session")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """`muster up` as a newcomer gets it: everything in one process, and SmolLM2 answering."""
    env = {
        "MUSTER_ARTIFACT_DIR": str(ARTIFACTS),
        "MUSTER_NODE_ID": "this-machine",
        "MUSTER_HEARTBEAT_INTERVAL_S": "1",
        "MUSTER_DISCOVER": "false",
    }
    plane = ControlPlane(tmp_path_factory.mktemp("up"), "up", env=env)
    plane.start()
    yield plane
    assert plane.stop() == 0, plane.log[-4000:]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """`muster server` with its own store, and no nodes but those that tests bring."""
    started = ControlPlane(tmp_path_factory.mktemp("plane"), env={})
    started.start()
    yield started
    assert started.stop() == 0, started.log[-4000:]
