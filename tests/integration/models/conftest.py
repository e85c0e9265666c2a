from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.control.jobs import service
from tests.integration.models.whole import Whole, whole


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    monkeypatch.setattr(service, "_LOOK_AGAIN_S", 0.1)  # a worker's new service is seen by its next look
    async with whole(tmp_path) as made:
        yield made
