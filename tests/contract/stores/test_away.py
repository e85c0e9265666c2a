"""A server that is away, full or forgetful: said in our words, and outlived."""

import asyncio
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from muster.domain.event import Event
from muster.domain.job import JobStatus
from muster.errors import SetupError, StoreUnavailable
from muster.ids import NodeId
from muster.stores.valkey import ValkeyStore, queue
from muster.stores.valkey.bus import ValkeyBus
from tests.contract.stores.world import Hand, completed, spec
from tests.valkey_server import KINDS, ValkeyServer
from tests.waiting import eventually

EVENT = Event(kind="node_seen", key="n", at_ms=1)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """Start a server of its own, which a test may kill."""
    own = ValkeyServer(request.param, "--appendonly", "yes")
    own.start()
    yield own
    own.remove()


async def test_a_call_outlives_a_server_that_is_started_again(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=30)
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    server.kill()
    claiming, reading = asyncio.create_task(hand.claims(1)), asyncio.create_task(store.log.read("0", 10, wait_s=0.05))
    await asyncio.wait([claiming, reading], timeout=0.05)
    server.start()
    assert [given.spec.job_id for given in (await claiming).jobs] == ["x"]
    assert (await reading)[0].event.kind == "job_submitted"
    assert (await hand.claims(0, completed("x"))).refused == ()
    await store.close()


async def test_a_wait_on_the_log_outlives_it_as_well(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=30)
    (last,) = await store.log.append([EVENT])
    waiting = asyncio.create_task(store.log.read(last, 10, wait_s=20))

    async def blocked() -> Any:
        return b"blocked_clients:1" in await store.server.execute("INFO", "clients")

    await eventually(blocked)
    server.kill()
    server.start()
    await store.log.append([EVENT])
    assert len(await waiting) == 1
    await store.close()


async def test_a_subscription_tells_of_a_gap_and_can_be_made_again(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=30)
    heard: list[bytes] = []

    async def there() -> Any:
        await store.bus.publish("t", b"x")
        return heard

    for _ in range(2):
        listening = asyncio.create_task(_listen(store.bus, heard))
        await eventually(there)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await listening
        heard.clear()
        server.start()
    await store.close()


async def test_a_quiet_subscription_is_asked_whether_it_lives(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    bus = ValkeyBus(store.server, quiet_s=0.2)  # as long as a busy machine may take to answer
    heard: list[bytes] = []

    async def asked_often() -> Any:
        stats = await store.server.execute("INFO", "commandstats")
        calls = re.search(rb"cmdstat_ping:calls=(\d+)", stats)
        return calls is not None and int(calls.group(1)) > 2

    listening = asyncio.create_task(_listen(bus, heard))
    await eventually(asked_often)
    await store.bus.publish("t", b"still there")
    await eventually(lambda: heard == [b"still there"])
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await store.close()


async def test_lesson_a_store_that_stays_away_is_unavailable_after_the_deadline(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=0.2)
    server.kill()
    for call in (store.ping(), store.jobs.counts(), store.log.read("0", 1, wait_s=0.1), store.bus.publish("t", b"")):
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            await call
    with pytest.raises(StoreUnavailable):
        await ValkeyStore.open(server.url, call_timeout_s=0.1)
    await store.close()


async def test_a_server_that_hangs_is_unavailable_after_the_deadline(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=0.3)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        await store.ping()
    server.process.send_signal(signal.SIGCONT)
    assert await _counts_again(store)
    await store.close()


async def test_lesson_a_server_that_forgot_our_functions_is_told_them_again(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    await store.jobs.submit([spec("x")])
    await store.server.execute("FUNCTION", "FLUSH")
    await store.jobs.submit([spec("y")])
    assert (await store.jobs.counts())[JobStatus.UNWORKABLE] == 2
    await store.close()


async def test_a_submit_is_told_with_the_time_of_the_server(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    for names in (["first"], ["one"], ["two", "three"]):
        await store.jobs.submit([spec(name) for name in names])
    told = await store.log.read("0", 10)
    assert [entry.event.kind for entry in told] == ["job_submitted"] * 3
    logged_ms = [int(entry.id.partition("-")[0]) for entry in told]
    assert told[1].event.at_ms == logged_ms[1]  # its line leaves the time to the entry
    assert told[0].event.at_ms <= logged_ms[0] <= told[2].event.at_ms
    (queue_of_llm,) = await store.jobs.queues()
    assert queue_of_llm.submitted_per_min > 0
    await store.close()


async def test_a_full_server_and_a_read_only_one_take_no_writes(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    await store.server.execute("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        await store.jobs.submit([spec("x")])
    await store.server.execute("CONFIG", "SET", "maxmemory", "0")
    await store.server.execute("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        await store.nodes.delete([NodeId("n")])
    await store.close()


async def test_a_wrong_password_is_said_at_once(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    await store.server.execute("CONFIG", "SET", "requirepass", "secret")
    with pytest.raises(StoreUnavailable, match="refuses us"):
        await ValkeyStore.open(f"{server.url}?password=wrong", call_timeout_s=30)
    with pytest.raises(StoreUnavailable, match="refuses us"):
        await ValkeyStore.open(server.url, call_timeout_s=30)
    second = await ValkeyStore.open(f"{server.url}?password=secret")
    await second.close()
    await store.close()


async def test_a_server_without_functions_is_too_old() -> None:
    old = ValkeyServer("redis", "--rename-command", "FCALL", "")
    old.start()
    with pytest.raises(SetupError, match="too old"):
        await ValkeyStore.open(old.url)
    old.remove()


async def test_what_is_no_such_server_at_all_is_unavailable() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StoreUnavailable):
        await ValkeyStore.open(f"valkey://127.0.0.1:{port}", call_timeout_s=0.2)
    server.close()


async def test_a_closed_store_says_so(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


def test_it_works_on_the_loop_that_muster_runs_on(server: ValkeyServer) -> None:
    async def live() -> None:
        store = await ValkeyStore.open(server.url)
        hand = await Hand(store, "n").opens()
        large = "x" * 5_000_000  # more than a socket takes at a time
        await asyncio.gather(*(store.jobs.submit([spec(f"j{at}", payload=large)]) for at in range(4)))
        waiting = asyncio.create_task(store.log.read(await store.log.newest_id(), 10, wait_s=20))
        assert len(await hand.gets(1)) == 1
        assert (await waiting)[0].event.kind == "job_claimed"
        await store.close()

    uvloop.run(live())


async def test_jobs_of_one_reply_are_bounded_in_bytes(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_CLAIM_BYTES_MAX", 5000)
    store = await ValkeyStore.open(server.url)
    hand = await Hand(store, "n").opens()
    sizes = [10, 2000, 2000, 2000, 9000, 10, 10]
    await store.jobs.submit([spec(f"j{at}", payload="x" * size) for at, size in enumerate(sizes)])
    assert await hand.gets(10) == ["j0", "j1", "j2"]
    assert [found.job_id for found in (await store.jobs.page(None, None, 10)).jobs][3:] == ["j3", "j4", "j5", "j6"]
    assert await hand.gets(10) == ["j3"]
    assert await hand.gets(10) == ["j4"]
    assert await hand.gets(10) == ["j5", "j6"]
    await store.close()


async def test_two_fleets_on_one_server_do_not_see_each_other(server: ValkeyServer) -> None:
    ours, theirs = [await ValkeyStore.open(server.url, prefix=prefix) for prefix in ("ours", "theirs")]
    await ours.jobs.submit([spec("x")])
    await Hand(theirs, "n").opens()
    assert await Hand(theirs, "n").gets() == []
    assert await theirs.jobs.get([spec("x").job_id]) == [None]
    keys = {key.partition(b":")[0] for key in await ours.server.execute("KEYS", "*")}
    assert keys == {b"{ours}", b"{theirs}"}
    await ours.close()
    await theirs.close()


async def _counts_again(store: ValkeyStore) -> Any:
    async def counted() -> Any:
        try:
            return await store.jobs.counts()
        except StoreUnavailable:
            return None

    return await eventually(counted)


async def _listen(bus: ValkeyBus, heard: list[bytes]) -> None:
    async for data in bus.subscribe("t"):
        heard.append(data)  # noqa: PERF401 - it is looked at while it grows


async def test_what_another_version_wrote_is_refused_rather_than_misread(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    await store.server.execute("SET", store.server.key("layout"), "0")
    await store.close()
    with pytest.raises(SetupError, match="layout 0") as refused:
        await ValkeyStore.open(server.url)
    assert "--data-dir" in refused.value.next_step


async def test_what_the_version_before_wrote_is_taken_over(server: ValkeyServer) -> None:
    store = await ValkeyStore.open(server.url)
    layout = await store.server.execute("GET", store.server.key("layout"))
    await store.server.execute("SET", store.server.key("layout"), "3")
    await store.close()
    store = await ValkeyStore.open(server.url)
    assert await store.server.execute("GET", store.server.key("layout")) == layout
    await store.close()
