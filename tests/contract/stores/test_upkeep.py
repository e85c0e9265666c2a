"""What is kept is bounded, and what is told is small."""

import asyncio
from typing import Any

import pytest

from muster.domain.capability import Capability
from muster.domain.job import JobStatus, Progress
from muster.ids import JobId
from muster.stores.memory import MemoryStore
from muster.wire import ProgressReport
from tests.clocks import ManualClock
from tests.contract.stores.world import SMALL, Hand, Store, again, completed, failed, needing, spec
from tests.waiting import eventually


async def test_purging_forgets_ended_jobs_by_age_and_by_number(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(f"j{number}") for number in range(8)])
    await hand.claims(7)
    for number in range(6):
        clock.advance(1)
        ends = failed(f"j{number}") if number % 2 else completed(f"j{number}")
        await hand.claims(0, ends)
    third_ms = clock.now_ms() - 3000
    assert await store.jobs.purge(third_ms, 100, 1) == 1
    assert await store.jobs.purge(third_ms, 100, 100) == 1
    assert await store.jobs.purge(third_ms, 3, 100) == 1
    kept = await store.jobs.get([JobId(f"j{number}") for number in range(8)])
    assert [found is not None for found in kept] == [False] * 3 + [True] * 5
    assert [entry.created for entry in await store.jobs.submit([spec("j0"), spec("j7")])] == [True, False]
    assert await store.jobs.purge(clock.now_ms() + 1, 0, 100) == 3
    counts = await store.jobs.counts()
    assert (counts[JobStatus.PENDING], counts[JobStatus.ASSIGNED], counts[JobStatus.COMPLETED]) == (2, 1, 0)


async def test_lesson_nothing_is_left_when_all_jobs_and_workers_are_gone(store: Store, clock: ManualClock) -> None:
    await _live_a_full_life(store, clock)
    while await store.jobs.purge(clock.now_ms() + 1, 0, 100):
        pass
    assert await store.jobs.counts() == dict.fromkeys(await store.jobs.counts(), 0)
    assert await store.jobs.classes() == []
    if isinstance(store, MemoryStore):
        return
    keys = {key.decode().removeprefix("{muster}:") for key in await store.server.execute("KEYS", "*")}
    keys = {key for key in keys if not key.startswith("before:")}  # those go by themselves
    assert keys == {"layout", "log", "matched", "places", "tags"}


async def _live_a_full_life(store: Store, clock: ManualClock) -> None:
    hand, other = await Hand(store, "n").opens(), await Hand(store, "m", Capability(services=("images",))).opens()
    third = await Hand(store, "o").opens()
    await store.jobs.submit([needing(f"j{number}", gb=number, workflow_id=f"w{number % 2}") for number in range(6)])
    await hand.claims(6)
    reports = [ProgressReport(job_id=JobId("j0"), attempt=1, progress=Progress(fraction=1))]
    await store.jobs.record_progress(hand.session, reports)
    await hand.claims(
        0, completed("j0"), failed("j1"), again("j2", avoid=hand.worker), again("j3", at_ms=clock.now_ms() + 1)
    )
    await store.jobs.cancel(JobId("j4"))
    clock.advance(1)
    await store.jobs.promote(10)
    assert await third.gets(9) == ["j2", "j3"]
    await third.claims(0, completed("j2", 2), completed("j3", 2))
    await other.claims(1, idle=True)
    await store.jobs.submit([spec("picture", service_required="images")])
    await other.claims(1)
    await other.claims(1, completed("picture"), idle=True)
    for closing in (hand, other, third):
        await store.jobs.close_session(closing.session)
    await store.jobs.cancel(JobId("j5"))
    clock.advance(7200)


async def test_a_class_is_remembered_for_a_while_after_its_last_session(store: Store, clock: ManualClock) -> None:
    hand, twin = await Hand(store, "n").opens(), await Hand(store, "m").opens()
    (entry,) = await store.jobs.classes()
    assert (entry.capability, entry.sessions) == (SMALL, 2)
    await store.jobs.close_session(hand.session)
    await store.jobs.close_session(twin.session)
    clock.advance(3599)
    await store.jobs.purge(0, 0, 10)
    assert [entry.sessions for entry in await store.jobs.classes()] == [0]
    await hand.opens()
    clock.advance(3599)
    await store.jobs.purge(0, 0, 10)
    assert [entry.sessions for entry in await store.jobs.classes()] == [1]
    await store.jobs.close_session(hand.session)
    clock.advance(3601)
    await store.jobs.purge(0, 0, 10)
    assert await store.jobs.classes() == []
    await store.jobs.submit([spec("x")])
    assert await (await hand.opens()).gets(1) == ["x"]


async def test_each_step_is_told_once_and_briefly(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a", payload="secret"), spec("b"), spec("c")])
    await hand.claims(3)
    reports = [ProgressReport(job_id=JobId("a"), attempt=1, progress=Progress(fraction=step / 10)) for step in range(3)]
    await store.jobs.record_progress(hand.session, reports)
    clock.advance(1)
    await hand.claims(0, completed("a", result="secret"), failed("b"), again("c"))
    await store.jobs.cancel(JobId("c"))
    await store.jobs.revive(JobId("b"))
    await hand.claims(1)
    await store.jobs.close_session(hand.session)
    told = [(entry.event.kind, entry.event.key, entry.event.ids) for entry in await store.log.read("0", 100)]
    assert told == [
        ("job_submitted", "a", ("a", "b", "c")),
        ("job_claimed", "a", ("a", "b", "c")),
        ("job_started", "a", ()),
        ("job_completed", "a", ()),
        ("job_failed", "b", ()),
        ("job_retrying", "c", ()),
        ("job_cancelled", "c", ()),
        ("job_revived", "b", ()),
        ("job_claimed", "b", ()),
        ("job_returned", "b", ()),
    ]
    entries = [entry.event for entry in await store.log.read("0", 100)]
    assert entries[1].data == {"worker_id": hand.worker, "attempts": [1, 1, 1]}
    assert entries[4].data == {"worker_id": hand.worker, "attempts": [1], "codes": ["broken"]}
    assert (entries[6].data, entries[7].data) == ({}, {})
    assert entries[3].at_ms == entries[0].at_ms + 1000 == clock.now_ms()
    assert "secret" not in repr(entries)


async def test_one_settle_for_several_workers_tells_of_each(store: Store) -> None:
    hands = [await Hand(store, name).opens() for name in ("n", "m")]
    await store.jobs.submit([spec(name) for name in ("a", "b", "c", "d")])
    for hand in hands:
        await hand.claims(2)
    at = await store.log.newest_id()
    await store.jobs.settle([failed("a"), failed("c"), again("b"), failed("d", code="odd")])
    told = [entry.event for entry in await store.log.read(at, 100)]
    assert [(event.kind, event.key, event.ids, event.data["worker_id"]) for event in told] == [
        ("job_failed", "a", (), "n-worker-0"),
        ("job_failed", "c", ("c", "d"), "m-worker-0"),
        ("job_retrying", "b", (), "n-worker-0"),
    ]
    assert told[1].data["codes"] == ["broken", "odd"]


# --- wake-ups ---------------------------------------------------------------------------------------------------------


class _Listener:
    """Collects what the bus says, and is asked only when everything before has arrived."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heard: list[str] = []
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for data in self._store.bus.subscribe("wake"):
            self._heard.append(data.decode())

    async def ready(self) -> "_Listener":
        await self.heard()
        return self

    async def heard(self) -> list[str]:
        """Return what came since the last time, up to a mark that is sent now."""

        async def marked() -> Any:
            if "mark" not in self._heard:
                await self._store.bus.publish("wake", b"mark")
            return "mark" in self._heard

        await eventually(marked)
        heard = [name for name in self._heard if name != "mark"]
        self._heard.clear()
        return heard

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def listener(store: Store) -> Any:
    listening = await _Listener(store).ready()
    yield listening
    await listening.stop()


async def test_lesson_work_wakes_exactly_the_classes_that_wait_for_it(store: Store, listener: _Listener) -> None:
    hand, painter = await Hand(store, "n").opens(), await Hand(store, "p", Capability(services=("images",))).opens()
    llm, images = [entry.class_id for entry in await store.jobs.classes()]
    if next(iter(await store.jobs.classes())).capability != SMALL:
        llm, images = images, llm
    await store.jobs.submit([spec("before")])
    assert await listener.heard() == []  # nobody waited
    assert await hand.gets(1, idle=True) == ["before"]
    await store.jobs.submit([spec("taken")])
    assert await listener.heard() == []  # found something, so it did not ask
    await hand.claims(1)
    assert await hand.gets(1) == []
    assert await hand.gets(0, idle=True) == []
    await store.jobs.submit([spec("unasked")])
    assert await listener.heard() == []
    assert await hand.gets(2) == ["unasked"]
    assert await hand.gets(1, idle=True) == await painter.gets(1, idle=True) == []
    await store.jobs.submit([spec("one"), spec("two")])
    await store.jobs.submit([spec("three")])
    assert await listener.heard() == [llm]  # once, until somebody waits again
    await store.jobs.submit([spec("picture", service_required="images")])
    assert await listener.heard() == [images]


async def test_whatever_brings_work_back_wakes_as_well(store: Store, clock: ManualClock, listener: _Listener) -> None:
    busy, idle = await Hand(store, "n").opens(), await Hand(store, "m").opens()
    (llm,) = [entry.class_id for entry in await store.jobs.classes()]
    await store.jobs.submit([spec("x"), spec("y")])
    await busy.claims(2)
    assert await idle.gets(1, idle=True) == []
    await busy.claims(0, again("x", avoid=busy.worker))
    assert await listener.heard() == [llm]
    assert await idle.gets(1, idle=True) == ["x"]
    assert await idle.gets(1, idle=True) == []
    await busy.claims(0, again("y", at_ms=clock.now_ms() + 1000))
    assert await listener.heard() == []
    clock.advance(1)
    await store.jobs.promote(10)
    assert await listener.heard() == [llm]
    assert await idle.gets(1) == ["y"]
    assert await busy.gets(1, idle=True) == []
    await store.jobs.close_session(idle.session)
    assert await listener.heard() == [llm]
    assert await busy.gets(5) == ["x", "y"]
    await busy.claims(0, failed("x", 3))
    assert await busy.gets(1, idle=True) == []
    await store.jobs.revive(JobId("x"))
    assert await listener.heard() == [llm]
