"""Two control planes over one store in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from muster.control.fleet.fleet import Fleet
from muster.control.fleet.peers import NODES_TOPIC, Peers
from muster.control.ingest import Ingest
from muster.control.recorder import Recorder
from muster.domain.node import Health, NodeFacts
from muster.errors import StoreUnavailable
from muster.ids import NodeId
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.stores.memory import MemoryStore
from muster.stores.memory.bus import MemoryBus
from muster.wire import Deregistration, Heartbeat, encode
from muster.wire.peers import NodeNews, PlaneAbout
from tests.clocks import ManualClock
from tests.waiting import eventually

NODE = NodeId("n1")


class Side:
    """One control plane, as far as nodes go."""

    def __init__(self, name: str, clock: ManualClock, store: MemoryStore, bus: MemoryBus) -> None:
        self.clock = clock
        self.recorder = Recorder(store.nodes, store.log)
        self.fleet = Fleet(NodeBook(Limits()), self.recorder, clock)
        self.peers = Peers(self.fleet, self.recorder, store.nodes, bus, clock, name)
        self.ingest = Ingest(self.fleet, Any, self.recorder, clock, link="http")  # type: ignore[arg-type]  # no commands here
        self.changed: list[set[NodeId]] = []
        self.fleet.on_change(self.changed.append)

    async def heartbeat(self, seq: int, boot_id: str = "boot") -> None:
        message = Heartbeat(facts=NodeFacts(node_id=NODE), boot_id=boot_id, seq=seq, heartbeat_interval_s=30.0)
        await self.ingest.heartbeat(message)
        await self.recorder.flush()

    @property
    def health(self) -> Health | None:
        node = self.fleet.book.get(NODE)
        return node.health if node else None

    @property
    def seq(self) -> int:
        return self.fleet.node(NODE).seq


class Pair:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.bus = self.store.bus
        self.first, self.second = (Side(name, self.clock, self.store, self.bus) for name in ("plane-1", "plane-2"))

    async def hear_each_other(self) -> None:
        def heard() -> bool:
            return all(side.peers.others and side.peers.deaf_for_s() is None for side in (self.first, self.second))

        await eventually(heard)

    async def kinds(self) -> list[str]:
        return [entry.event.kind for entry in await self.store.log.read("0", 1000)]


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr("muster.control.fleet.peers._BEACON_EVERY_S", 0.005)
    monkeypatch.setattr("muster.control.fleet.peers._BUS_RETRY_S", 0.005)
    pair = Pair()
    for side in (pair.first, pair.second):
        await side.peers.start()
        await side.peers.start()
    await pair.hear_each_other()
    yield pair
    for side in (pair.first, pair.second):
        await side.peers.stop()
        await side.peers.stop()


async def test_what_one_hears_the_other_knows_and_shows(pair: Pair) -> None:
    await pair.first.heartbeat(1)
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    assert {NODE} in pair.second.changed
    assert (pair.first.peers.others, pair.second.peers.others) == (["plane-2"], ["plane-1"])
    await pair.second.recorder.flush()
    assert (await pair.kinds()).count("node_registered") == 1


async def test_both_hear_of_a_new_node_at_once_and_one_tells_of_it(pair: Pair) -> None:
    await asyncio.gather(pair.first.heartbeat(1), pair.second.heartbeat(2))
    await eventually(lambda: pair.first.seq == pair.second.seq == 2)
    assert (await pair.kinds()).count("node_registered") == 1


async def test_a_goodbye_is_heard_by_both_and_what_waits_to_be_written_does_not_undo_it(pair: Pair) -> None:
    await pair.first.heartbeat(1)
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    message = Heartbeat(facts=NodeFacts(node_id=NODE), boot_id="boot", seq=2, heartbeat_interval_s=10.0)
    await pair.second.ingest.heartbeat(message)
    await pair.first.ingest.deregister(Deregistration(node_id=NODE, boot_id="boot"))
    await pair.first.recorder.flush()
    await eventually(lambda: pair.second.health is None)
    await pair.second.recorder.flush()
    assert await pair.store.nodes.load() == []


async def test_a_record_that_waits_to_be_written_gives_way_to_a_newer_one(pair: Pair) -> None:
    await pair.first.heartbeat(1)
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    message = Heartbeat(facts=NodeFacts(node_id=NODE), boot_id="boot", seq=2, heartbeat_interval_s=10.0)
    await pair.first.ingest.heartbeat(message)
    await pair.second.heartbeat(3)
    await eventually(lambda: pair.first.seq == 3)
    await pair.first.recorder.flush()
    assert [node.seq for node in await pair.store.nodes.load()] == [3]


async def test_silence_of_the_bus_is_nobodys_silence_and_what_was_missed_is_read(pair: Pair) -> None:
    await pair.first.heartbeat(1)
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    await pair.second.peers.stop()  # as a process that is frozen
    pair.clock.advance(200)
    pair.second.fleet.tick()
    assert not pair.second.fleet.judges
    assert not pair.second.fleet.is_late(pair.second.fleet.node(NODE))
    await pair.first.heartbeat(2)
    await pair.second.peers.start()
    await eventually(lambda: pair.second.fleet.judges)
    assert pair.second.seq == 2
    pair.clock.advance(100)
    pair.second.fleet.tick()
    assert pair.second.health is Health.HEALTHY


async def test_a_lost_subscription_is_a_gap(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe = pair.bus.subscribe
    cut = asyncio.Event()

    async def breaks(topic: str) -> AsyncIterator[bytes]:
        async for message in subscribe(topic):
            if cut.is_set():
                raise StoreUnavailable("the connection was lost")
            yield message

    monkeypatch.setattr(pair.bus, "subscribe", breaks)
    await pair.second.peers.stop()
    await pair.second.peers.start()
    await pair.hear_each_other()
    cut.set()
    await eventually(lambda: pair.second.peers.deaf_for_s() is not None)
    cut.clear()
    await pair.hear_each_other()


async def fails(call: Callable[[], Awaitable[None]]) -> bool:
    try:
        await call()
    except StoreUnavailable:
        return True
    return False


async def test_a_store_that_is_away_is_asked_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> list[Any]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(pair.store.nodes, "load", away)
        pair.second.peers.gap()
        await eventually(partial(fails, pair.second.peers.beat))
        assert pair.second.peers.deaf_for_s() is not None
    await pair.hear_each_other()


async def test_records_are_compared_now_and_then_for_what_got_lost_all_the_same(pair: Pair) -> None:
    await pair.first.heartbeat(1)
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    await pair.store.nodes.delete([NODE])
    for _ in range(40):  # small steps: the beacons go on
        pair.clock.advance(1)
        await pair.hear_each_other()
    await eventually(lambda: pair.second.health is None)
    await pair.first.recorder.flush()
    await eventually(lambda: pair.second.health is Health.HEALTHY)
    assert len(await pair.store.nodes.load()) == 1


async def test_who_stopped_is_forgotten_and_nothing_is_published_to_nobody(pair: Pair) -> None:
    await pair.second.peers.stop()
    for _ in range(11):
        pair.clock.advance(1)
        await eventually(lambda: pair.first.peers.deaf_for_s() is None)
    await eventually(lambda: pair.first.peers.others == [])
    heard = pair.bus.subscribe(NODES_TOPIC)
    first = asyncio.ensure_future(anext(heard))
    await pair.first.heartbeat(1)
    assert {await first, await anext(heard), await anext(heard)} == {b"plane-1\n"}


async def test_news_that_cannot_be_read_harm_nobody(pair: Pair) -> None:
    pair.first.peers.take(b"plane-3\nnot JSON")
    pair.first.peers.take(b'plane-3\n{"saved": 7}')
    assert "plane-3" in pair.first.peers.others


async def test_those_who_share_a_port_know_each_other() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)

    def heard_by(me: str, gateway_of: str = "") -> list[str]:
        side = Side(me, clock, store, store.bus)
        about = PlaneAbout(version="0.2.0", hostname="here", started_at_ms=7, gateway_of=gateway_of)
        peers = Peers(side.fleet, side.recorder, store.nodes, store.bus, clock, me, about)
        for one, of in (("first", ""), ("second", "first"), ("third", "first"), ("far", ""), ("farther", "far")):
            if one != me:
                news = NodeNews(plane=PlaneAbout(version="0.2.0", hostname="h", started_at_ms=1, gateway_of=of))
                peers.take(one.encode() + b"\n" + encode(news))
        return peers.siblings()

    assert heard_by("first") == ["second", "third"]
    assert heard_by("third", "first") == ["first", "second"]
    assert heard_by("far") == ["farther"]


async def test_control_planes_tell_each_other_what_they_are_and_are_forgotten_with_their_voice() -> None:
    about = PlaneAbout(version="0.2.0", hostname="far", started_at_ms=7)
    clock = ManualClock()
    store = MemoryStore(clock)
    here = Side("plane-1", clock, store, store.bus)
    there = Side("plane-2", clock, store, store.bus)
    told = Peers(there.fleet, there.recorder, store.nodes, store.bus, clock, "plane-2", about)
    assert (told.about("plane-2"), here.peers.about("plane-1")) == (about, None)
    here.peers.take(b"plane-2\n" + encode(NodeNews(plane=about)))
    assert here.peers.others == ["plane-2"]
    assert here.peers.about("plane-2") == about
    assert here.changed == []
    clock.advance(11)
    await here.peers.beat()
    assert (here.peers.others, here.peers.about("plane-2")) == ([], None)
