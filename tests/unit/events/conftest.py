from collections.abc import AsyncIterator

import pytest

from tests.planes import PlaneUnderTest, running_plane


@pytest.fixture
async def plane() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane() as plane:
        yield plane
