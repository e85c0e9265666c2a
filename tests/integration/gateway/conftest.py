import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Engine
from tests.integration.gateway.fleet import FleetTwin, worker


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Use the loop that Muster runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


@pytest.fixture
async def door(engine: Engine) -> AsyncIterator[Door]:
    async with opened(FleetTwin(worker(engine.url))) as door:
        yield door
