"""The pulse against a control plane that comes and goes, in virtual time."""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from muster.agent import outbox as outboxes
from muster.agent.outbox import Outbox
from muster.agent.report.heartbeat import Pulse
from muster.domain.node import NodeFacts
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, StoreUnavailable, Unauthorized, UpstreamFailed
from muster.wire import Heartbeat, HeartbeatReply, Registration
from muster.wire.packing import unpacked
from tests.unit.agent.nodes import NODE, FakePlane
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes, until

FACTS = NodeFacts(node_id=NODE)


class Beating:
    def __init__(self, plane: FakePlane, interval_s: float) -> None:
        self.plane = plane
        self.seq = 0
        self.fault: Exception | None = None
        self.replies: list[HeartbeatReply] = []
        self.services: tuple[Service, ...] = ()
        self.outbox = Outbox(NODE, LoopClock(), self._hurry)
        self.pulse = Pulse(
            NODE,
            plane,
            lambda: Registration(facts=FACTS, boot_id="boot-a", heartbeat_interval_s=interval_s),
            self.sample,
            self.outbox,
            self.replies.append,
            LoopClock(),
            random.Random(1),
            interval_s=interval_s,
        )

    def _hurry(self) -> None:
        self.pulse.hurry()

    async def sample(self) -> Heartbeat:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        self.seq += 1
        return Heartbeat(facts=FACTS, boot_id="boot-a", seq=self.seq, heartbeat_interval_s=10.0, services=self.services)

    def gaps_s(self) -> list[float]:
        at_s = self.plane.beat_at_s
        return [round(later - earlier, 2) for earlier, later in itertools.pairwise(at_s)]


@asynccontextmanager
async def beating(plane: FakePlane, interval_s: float = 10.0) -> AsyncIterator[Beating]:
    node = Beating(plane, interval_s)
    await node.pulse.start()
    try:
        yield node
    finally:
        await node.pulse.stop()


@in_virtual_time
async def test_a_node_registers_once_then_beats_at_its_interval() -> None:
    plane = FakePlane()
    async with beating(plane) as node:
        await time_passes(101)
        assert set(node.gaps_s()) == {10.0}
    assert len(plane.registrations) == 1
    assert [beat.seq for beat in plane.heartbeats] == list(range(1, 12))


@in_virtual_time
async def test_news_is_told_soon_but_a_flood_of_it_is_not_a_flood_of_heartbeats() -> None:
    plane = FakePlane()
    async with beating(plane) as node:
        await time_passes(5)
        node.pulse.hurry()
        await time_passes(0.1)
        assert len(plane.heartbeats) == 2
        for _ in range(1000):
            node.pulse.hurry()
            await time_passes(0.01)
    assert len(plane.heartbeats) <= 14
    assert min(node.gaps_s()) >= 1.0


@in_virtual_time
async def test_the_control_plane_may_ask_for_more_frequent_heartbeats_not_for_fewer() -> None:
    plane = FakePlane()
    plane.reply = HeartbeatReply(next_heartbeat_ms=2000)
    async with beating(plane) as node:
        await time_passes(20)
        assert set(node.gaps_s()) == {2.0}
        plane.reply = HeartbeatReply(next_heartbeat_ms=600_000)
        await time_passes(100)
        assert set(node.gaps_s()) == {2.0, 10.0}


@in_virtual_time
async def test_nobody_there_is_tried_for_ever_with_growing_pauses_then_registered_with() -> None:
    plane = FakePlane()
    tries: list[float] = []

    async def away(_: str) -> None:
        tries.append(LoopClock().monotonic_s())
        if LoopClock().monotonic_s() < 4600:
            raise UpstreamFailed("nobody there")

    plane.trouble = away
    async with beating(plane, interval_s=60.0):
        await time_passes(3590)
        pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
        assert pauses[0] <= 1.0
        assert pauses[1] <= 2.0
        assert 22.5 <= max(pauses) <= 30.0
        assert not plane.heartbeats
        await time_passes(60)
    assert len(plane.registrations) == 1
    assert plane.heartbeats[0].seq == 1


@in_virtual_time
async def test_after_a_cut_the_node_registers_again_and_the_newest_heartbeat_is_sent_no_older_one() -> None:
    plane = FakePlane()

    async def cut(_: str) -> None:
        if 1015 < LoopClock().monotonic_s() < 1115:
            raise StoreUnavailable("the store is away")

    plane.trouble = cut
    async with beating(plane) as node:
        await time_passes(150)
        seqs = [beat.seq for beat in plane.heartbeats]
        assert seqs == sorted(set(seqs))
        assert len(seqs) >= 5
        assert len(plane.registrations) == 2
        assert node.seq == plane.heartbeats[-1].seq


@in_virtual_time
async def test_a_control_plane_that_has_forgotten_the_node_is_registered_with_at_once() -> None:
    plane = FakePlane()
    async with beating(plane):
        await time_passes(15)
        plane.once.append(HeartbeatReply(next_heartbeat_ms=10_000, known=False))
        await time_passes(10)
        assert len(plane.registrations) == 2


@in_virtual_time
async def test_events_wait_until_they_are_taken_and_come_in_order() -> None:
    plane = FakePlane()

    async def cut(call: str) -> None:
        if call == "events" and LoopClock().monotonic_s() < 1060:
            raise UpstreamFailed("cut")

    plane.trouble = cut
    async with beating(plane) as node:
        for number in range(250):
            node.outbox.add("step_done", number=number)
        await until(lambda: len(plane.events) == 250)
    assert [told["number"] for told in plane.told("step_done")] == list(range(250))
    assert all(event.key == NODE for event in plane.events)


@in_virtual_time
async def test_events_that_are_refused_are_given_up_and_do_not_hold_up_others() -> None:
    plane = FakePlane()
    refusals = [InvalidInput("too odd")]

    async def refuse(call: str) -> None:
        if call == "events" and refusals:
            raise refusals.pop()

    plane.trouble = refuse
    async with beating(plane) as node:
        node.outbox.add("odd_one")
        await time_passes(5)
        node.outbox.add("good_one")
        await until(lambda: plane.kinds() == ["good_one"])
    assert len(plane.registrations) == 1


@in_virtual_time
async def test_too_many_events_cost_the_oldest_and_the_loss_is_told() -> None:
    plane, box = FakePlane(), Outbox(NODE, LoopClock())
    for number in range(outboxes.EVENTS_MAX + 20):
        box.add("step_done", number=number)
    first, second, *_ = batch = box.batch(100)
    assert (first.kind, first.data) == ("events_dropped", {"count": 20})
    assert second.data == {"number": 20}
    box.taken(batch)
    assert box.batch(1)[0].data == {"number": 119}
    assert not plane.events


@in_virtual_time
async def test_a_fault_of_our_own_does_not_stop_the_pulse() -> None:
    plane = FakePlane()
    async with beating(plane) as node:
        await time_passes(1)
        node.fault = ZeroDivisionError("a bug")
        await time_passes(60)
    assert len(plane.heartbeats) > 5


@in_virtual_time
async def test_a_refusal_names_the_next_step_and_is_tried_again() -> None:
    plane = FakePlane()

    async def refuse(_: str) -> None:
        if LoopClock().monotonic_s() < 1060:
            raise Unauthorized("this token is not known")

    plane.trouble = refuse
    with capture_logs() as logs:
        async with beating(plane):
            await until(lambda: len(plane.heartbeats) > 0)
    refusals = [entry for entry in logs if entry["event"] == "control_plane_refuses_us"]
    assert len(refusals) > 1
    assert {entry["log_level"] for entry in refusals} == {"error"}
    assert "muster token create" in refusals[0]["next_step"]


@in_virtual_time
async def test_a_long_heartbeat_is_packed_for_a_control_plane_that_says_it_understands() -> None:
    plane = FakePlane()
    plane.reply = HeartbeatReply(next_heartbeat_ms=10_000, takes_packed=True)
    names = [f"llama-{number}" for number in range(20)]
    async with beating(plane) as node:
        node.services = tuple(Service(name=name, connector="c", status=ServiceStatus.RUNNING) for name in names)
        await time_passes(25)
        plane.reply = HeartbeatReply(next_heartbeat_ms=10_000)  # an older one has taken its place
        await time_passes(20)
    assert [beat.packed is not None for beat in plane.heartbeats] == [False, True, True, True, False]
    assert all([service.name for service in unpacked(beat).services] == names for beat in plane.heartbeats)
