from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.models.whole import Whole, whole


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Whole]:
    async with whole(tmp_path) as made:
        yield made
