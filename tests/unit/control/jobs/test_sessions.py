"""Workers whose calls come through several control planes, as a load balancer sends them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from muster.control.jobs.sessions import SESSIONS_TOPIC, SessionClasses
from muster.domain.job import Requirements
from muster.errors import StoreUnavailable
from muster.ids import SessionId, WorkerId
from muster.wire import RenewRequest
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually

S1 = SessionId("s1")
RENEWAL = RenewRequest(session_id=S1, worker_id=WorkerId("n1-worker-0"), held=())


async def known_at(plane: PlaneUnderTest) -> bool:
    return (await plane.jobs.renew(RENEWAL)).session_known


async def learned(second: PlaneUnderTest, first: PlaneUnderTest) -> bool:
    """Open the session at the first until the second has heard of it: it may have begun to listen too late."""
    await first.open_session()
    return await known_at(second)


async def test_a_session_that_one_control_plane_opened_is_known_to_the_others_and_waits_there_too() -> None:
    async with running_plane() as first, running_plane(beside=first) as second:
        await eventually(lambda: learned(second, first))
        waiting = asyncio.create_task(second.claim(wait_s=30))
        await eventually(lambda: second.jobs.waiters == 1)
        job_id = await first.submit()
        reply = await asyncio.wait_for(waiting, 5)
        assert [job.spec.job_id for job in reply.jobs] == [job_id]


async def test_a_change_of_what_a_worker_can_do_is_known_wherever_it_waits_for_work() -> None:
    async with running_plane() as first, running_plane(beside=first) as second:
        await eventually(lambda: learned(second, first))
        before = second.jobs._sessions.get(S1)
        await first.open_session(models=("m1",))
        await eventually(lambda: second.jobs._sessions.get(S1) != before)
        waiting = asyncio.create_task(second.claim(wait_s=30))
        await eventually(lambda: second.jobs.waiters == 1)
        await first.submit("after", requirements=Requirements(models=("m1",)))
        reply = await asyncio.wait_for(waiting, 3)  # sooner than it looks again by itself
        assert [job.spec.job_id for job in reply.jobs] == ["after"]


@pytest.mark.parametrize("told", ["first", "second"])
async def test_who_waits_for_work_looks_anew_when_what_it_can_do_changes(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.control.jobs.service._LOOK_AGAIN_S", 3600.0)  # it does not look by itself
    async with running_plane() as first, running_plane(beside=first) as second:
        await eventually(lambda: learned(second, first))
        await first.submit("waits", requirements=Requirements(models=("m1",)))
        waiting = asyncio.create_task(second.claim(wait_s=3600))
        await eventually(lambda: second.jobs.waiters == 1)
        await (first if told == "first" else second).open_session(models=("m1",))
        reply = await asyncio.wait_for(waiting, 5)
        assert [job.spec.job_id for job in reply.jobs] == ["waits"]


async def test_who_looked_anew_for_nothing_is_woken_by_what_it_can_do_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.control.jobs.service._LOOK_AGAIN_S", 3600.0)
    async with running_plane() as plane:
        await plane.open_session()
        waiting = asyncio.create_task(plane.claim(wait_s=3600))
        await eventually(lambda: plane.jobs.waiters == 1)
        before = plane.jobs._sessions.get(S1)
        await plane.open_session(models=("m1",))
        after = plane.jobs._sessions.get(S1)
        assert after not in {before, None}
        await eventually(lambda: after in plane.jobs._wakeups._waiting)
        await plane.submit("after", requirements=Requirements(models=("m1",)))
        reply = await asyncio.wait_for(waiting, 5)
        assert [job.spec.job_id for job in reply.jobs] == ["after"]


async def test_a_control_plane_that_came_later_learns_of_a_session_when_it_is_opened_anew_anywhere() -> None:
    async with running_plane() as first:
        await first.open_session()
        async with running_plane(beside=first) as second:
            assert not await known_at(second)
            await eventually(lambda: learned(second, first))


async def test_what_the_store_has_forgotten_is_known_nowhere() -> None:
    async with running_plane() as first, running_plane(beside=first) as second:
        await eventually(lambda: learned(second, first))
        await first.store.jobs.close_session(S1)
        assert not await known_at(first)
        assert not await known_at(second)


class BrokenBus:
    """Away at first; then what is published is heard."""

    def __init__(self) -> None:
        self.away = True
        self.asked = 0
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue()

    async def publish(self, topic: str, data: bytes) -> None:
        assert topic == SESSIONS_TOPIC
        if self.away:
            raise StoreUnavailable("away")
        self.waiting.put_nowait(data)

    async def subscribe(self, _topic: str, _ready: object = None) -> AsyncIterator[bytes]:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        while True:
            yield await self.waiting.get()


async def test_a_bus_that_is_away_keeps_nobody_from_opening_a_session_and_is_listened_to_again() -> None:
    bus = BrokenBus()
    sessions = SessionClasses(bus)
    await sessions.start()
    await eventually(lambda: bus.asked == 1)
    await sessions.opened(S1, "class-1")
    assert sessions.get(S1) == "class-1"
    bus.away = False
    await eventually(lambda: bus.asked == 2)
    await bus.publish(SESSIONS_TOPIC, b"s2 class-2")
    await eventually(lambda: sessions.get(SessionId("s2")) == "class-2")
    sessions.closed(S1)
    assert sessions.get(S1) is None
    await sessions.stop()
