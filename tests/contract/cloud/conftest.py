from collections.abc import AsyncIterator, Iterator

import pytest

from muster.cloud.ec2 import Ec2
from muster.cloud.memory import MemoryCloud
from muster.ports import CloudProvider
from muster.system import SystemClock
from tests.moto_server import CREDENTIALS, MotoServer


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(params=["memory", "ec2"])
async def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CloudProvider]:
    if request.param == "memory":
        yield MemoryCloud(SystemClock())
        return
    moto = request.getfixturevalue("moto")
    moto.reset()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    ec2 = Ec2(region="us-east-1", endpoint_url=moto.url)
    yield ec2
    await ec2.close()
