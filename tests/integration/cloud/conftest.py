from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cloud.rent import Rent
from tests.moto_server import MotoServer


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture
def rent(tmp_path: Path, moto: MotoServer) -> Iterator[Rent]:
    moto.reset()
    rent = Rent(tmp_path, moto)
    yield rent
    rent.close()
