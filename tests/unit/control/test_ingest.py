import pytest

from muster.domain.event import Event
from muster.domain.node import Health, NodeFacts
from muster.errors import InvalidInput, NodeNotFound, StoreUnavailable
from muster.ids import NodeId
from muster.wire import AgentEvents, Deregistration, Registration
from tests.planes import PlaneUnderTest


def registration(node: str, interval_s: float = 10.0) -> Registration:
    return Registration(facts=NodeFacts(node_id=NodeId(node)), boot_id="b", heartbeat_interval_s=interval_s)


async def test_a_registered_node_is_listed_at_once(plane: PlaneUnderTest) -> None:
    reply = await plane.ingest.register(registration("n1"))
    assert reply.next_heartbeat_ms == 10_000
    assert [node.node_id for node in plane.fleet.nodes()] == ["n1"]


@pytest.mark.parametrize("node", ["", "unknown"])
async def test_a_node_without_a_name_is_refused(plane: PlaneUnderTest, node: str) -> None:
    with pytest.raises(InvalidInput):
        await plane.ingest.register(registration(node))
    assert plane.fleet.nodes() == []


@pytest.mark.parametrize("interval_s", [0.0, -1.0, 1e9, float("nan")])
async def test_an_interval_that_cannot_be_is_refused(plane: PlaneUnderTest, interval_s: float) -> None:
    with pytest.raises(InvalidInput):
        await plane.ingest.register(registration("n1", interval_s))


async def test_a_heartbeat_alone_makes_the_record_and_asks_for_a_registration(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    assert plane.fleet.node(NodeId("n1")).health is Health.HEALTHY
    assert "node_registered" in await plane.recorded()


async def test_silence_makes_a_node_late_then_stale_then_dead_and_a_heartbeat_brings_it_back(
    plane: PlaneUnderTest,
) -> None:
    await plane.heartbeat("n1")
    for seconds, health in ((35, Health.HEALTHY), (10, Health.STALE), (60, Health.DEAD)):
        plane.clock.advance(seconds)
        plane.fleet.tick()
        node = plane.fleet.node(NodeId("n1"))
        assert node.health is health
        assert plane.fleet.is_late(node)
    await plane.heartbeat("n1", seq=2)
    assert plane.fleet.node(NodeId("n1")).health is Health.HEALTHY
    kinds = await plane.recorded()
    assert kinds.index("node_stale") < kinds.index("node_dead") < kinds.index("node_recovered")


async def test_what_agents_tell_is_logged_under_their_own_name_and_our_time(plane: PlaneUnderTest) -> None:
    told = Event(kind="service_started", key="somebody-else", at_ms=1, data={"service": "llama"})
    await plane.ingest.report_events(AgentEvents(node_id=NodeId("n1"), events=(told,)))
    await plane.recorder.flush()
    (entry,) = await plane.store.log.read("0", 10)
    assert (entry.event.key, entry.event.at_ms) == ("n1", plane.clock.now_ms())


async def test_too_many_events_at_once_are_refused(plane: PlaneUnderTest) -> None:
    told = Event(kind="x", key="n1", at_ms=1)
    with pytest.raises(InvalidInput):
        await plane.ingest.report_events(AgentEvents(node_id=NodeId("n1"), events=(told,) * 1001))


async def test_a_node_that_says_goodbye_leaves_the_lists_and_the_store(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    await plane.recorder.flush()
    assert len(await plane.store.nodes.load()) == 1
    await plane.ingest.deregister(Deregistration(node_id=NodeId("n1"), boot_id="n1-boot"))
    await plane.recorder.flush()
    assert await plane.store.nodes.load() == []
    with pytest.raises(NodeNotFound):
        plane.fleet.node(NodeId("n1"))


async def test_what_could_not_be_written_is_written_later_in_order(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> list[str]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store.nodes, "save", away)
        patch.setattr(plane.store.log, "append", away)
        await plane.heartbeat("n1")
        await plane.heartbeat("n2")
        with pytest.raises(StoreUnavailable):
            await plane.recorder.flush()
    assert (await plane.recorded()).count("node_registered") == 2
    assert len(await plane.store.nodes.load()) == 2


async def test_records_of_an_earlier_life_are_taken_up(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    await plane.recorder.flush()
    other = PlaneUnderTest()
    other.clock.advance(10_000)
    other.fleet.load(await plane.store.nodes.load())
    other.fleet.tick()
    assert other.fleet.node(NodeId("n1")).health is Health.HEALTHY
