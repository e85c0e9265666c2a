"""How a store says that it is, and who has a lease."""

import asyncio

import pytest

from muster.domain.event import Event
from muster.errors import StoreUnavailable
from muster.stores.valkey import ValkeyStore
from muster.stores.valkey.probe import facts_in, standing_of
from tests.clocks import ManualClock
from tests.contract.stores.world import Store

_REPLICA = b"""# Server\r
redis_version:7.0.15\r
server_time_usec:1700000100000000\r
uptime_in_seconds:50\r
# Persistence\r
aof_enabled:1\r
aof_last_write_status:err\r
rdb_last_bgsave_status:err\r
rdb_last_save_time:1700000090\r
# Replication\r
role:slave\r
master_link_status:down\r
maxmemory:1073741824\r
"""


async def test_a_store_says_what_it_is_and_how_long_the_log_is(store: Store) -> None:
    await store.log.append([Event(kind="made_up", key="n1", at_ms=1), Event(kind="made_up", key="n1", at_ms=2)])
    found = await store.probe.standing()
    assert found.log_entries == 2
    assert found.ping_ms >= 0
    if isinstance(store, ValkeyStore):
        assert found.product in {"valkey", "redis"}
        assert found.version
        assert found.keys >= 1
        assert found.clients is not None
        assert found.memory_mb is not None
        assert (found.role, found.primary_up, found.saved_at_ms) == ("primary", None, None)
    else:
        assert found.product == "memory"


async def test_the_holder_of_a_lease_is_told_until_it_ends(store: Store, clock: ManualClock) -> None:
    assert await store.leases.holder("sweep") is None
    await store.leases.take("sweep", "plane|a", 3.0)
    assert await store.leases.holder("sweep") == "plane|a"
    clock.advance(3.0)
    assert await store.leases.holder("sweep") is None


def test_a_replica_that_lost_its_primary_and_cannot_write_says_so() -> None:
    found = standing_of(facts_in(_REPLICA), ping_ms=0.5, keys=1, log_entries=0)
    assert (found.product, found.version) == ("redis", "7.0.15")
    assert (found.role, found.primary_up) == ("replica", False)
    assert found.append_only is True
    assert found.append_error == "the last write to its append-only file failed; the last snapshot failed"
    assert found.saved_at_ms == 1_700_000_090_000
    assert found.limit_mb == 1024
    assert found.clients is None


def test_what_a_store_does_not_tell_is_not_known() -> None:
    found = standing_of({}, ping_ms=0.5, keys=0, log_entries=0)
    assert (found.memory_mb, found.append_only, found.role, found.saved_at_ms) == (None, None, None, None)


async def test_a_store_that_may_not_be_asked_is_said_to_be_silent(store: Store) -> None:
    if not isinstance(store, ValkeyStore):
        return
    rules = ("ACL", "SETUSER", "default")
    await store.server.execute(*rules, "-info")
    try:
        with pytest.raises(StoreUnavailable, match="refuses us"):
            await asyncio.wait_for(store.probe.standing(), 5)
    finally:
        await store.server.execute(*rules, "+info")
