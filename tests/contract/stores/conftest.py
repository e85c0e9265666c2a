from collections.abc import AsyncIterator, Iterator

import pytest

from muster.stores.memory import MemoryStore
from muster.stores.valkey import ValkeyStore
from tests.clocks import ManualClock
from tests.contract.stores.world import COMMANDS_ENDED_MAX, Store
from tests.valkey_server import KINDS, ValkeyServer


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, ValkeyServer]]:
    """Servers by kind, each started when it is first asked for."""
    running: dict[str, ValkeyServer] = {}
    yield running
    for server in running.values():
        server.remove()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", *KINDS])
async def store(
    request: pytest.FixtureRequest, servers: dict[str, ValkeyServer], clock: ManualClock
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(
            clock, result_bytes_max=1000, event_log_entries_max=100, commands_ended_max=COMMANDS_ENDED_MAX
        )
        return
    if request.param not in servers:
        servers[request.param] = ValkeyServer(request.param)
        servers[request.param].start()
    opened = await ValkeyStore.open(
        servers[request.param].url,
        clock=clock,
        result_bytes_max=1000,
        event_log_entries_max=100,
        commands_ended_max=COMMANDS_ENDED_MAX,
    )
    yield opened
    await opened.server.execute("FLUSHALL")
    await opened.close()
