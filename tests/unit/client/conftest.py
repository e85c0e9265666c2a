from collections.abc import AsyncIterator, Iterator

import pytest

from muster.client import AsyncClient
from tests.made_server import MadeServer


@pytest.fixture
def made() -> Iterator[MadeServer]:
    with MadeServer() as server:
        yield server


@pytest.fixture
async def client(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setattr("muster.client.connection._PAUSE_S", 0.001)
    monkeypatch.setattr("muster.client.connection._PAUSE_S_MAX", 0.01)
    async with AsyncClient(made.url, token="secret", give_up_after_s=5.0) as client:
        yield client
