from muster.control.fleet.presence import Presence
from muster.domain.node import Health, Node
from muster.ids import NodeId
from tests.planes import PlaneUnderTest
from tests.waiting import eventually

N1 = NodeId("n1")
LINK = "http"  # the one that the plane under test hears over


def node(plane: PlaneUnderTest) -> Node:
    return plane.fleet.node(N1)


def watching(plane: PlaneUnderTest, link: str = LINK) -> Presence:
    return Presence(plane.fleet, plane.clock, link=link, patience_s=0.0)


async def judged(presence: Presence) -> None:
    await eventually(lambda: not presence.waits_for)


async def test_a_node_whose_stream_ended_takes_no_new_work_until_it_is_heard(plane: PlaneUnderTest) -> None:
    await plane.heartbeat()
    presence = watching(plane)
    presence.ended(N1)
    await judged(presence)
    assert (node(plane).connected, node(plane).health) == (False, Health.HEALTHY)

    plane.clock.advance(1)
    await plane.heartbeat(seq=2)
    assert node(plane).connected


async def test_a_node_that_was_heard_since_is_there(plane: PlaneUnderTest) -> None:
    await plane.heartbeat()
    presence = watching(plane)
    presence.ended(N1)
    plane.clock.advance(1)
    await plane.heartbeat(seq=2)
    await judged(presence)
    assert node(plane).connected


async def test_a_link_that_the_node_has_left_behind_says_nothing(plane: PlaneUnderTest) -> None:
    await plane.heartbeat()
    presence = watching(plane, "grpc")
    presence.ended(N1)
    await judged(presence)
    assert node(plane).connected


async def test_an_unknown_node_and_one_told_twice_are_judged_once_at_most(plane: PlaneUnderTest) -> None:
    presence = watching(plane)
    presence.ended(NodeId("nobody"))
    presence.ended(NodeId("nobody"))
    await judged(presence)
    assert plane.fleet.nodes() == []


async def test_nobody_is_judged_after_a_stop(plane: PlaneUnderTest) -> None:
    await plane.heartbeat()
    presence = watching(plane)
    await presence.start()
    presence.ended(N1)
    await presence.stop()
    await judged(presence)
    assert node(plane).connected
