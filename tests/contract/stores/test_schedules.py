"""Schedules: kept, due in order, and changed by one at a time."""

from msgspec.structs import replace

from muster.domain.schedule import Missed, Schedule
from tests.contract.stores.world import Store, spec


def schedule(name: str, next_at: int | None = 1000) -> Schedule:
    job = spec("", payload={"deep": [1, "é"]})
    return Schedule(schedule_id=name, job=job, cron="* * * * *", missed=Missed.ALL, created_at=5, next_at=next_at)


async def test_a_schedule_is_kept_as_it_was_given(store: Store) -> None:
    assert await store.schedules.get("a") is None
    await store.schedules.save(schedule("b", next_at=None))
    await store.schedules.save(schedule("a"))
    assert await store.schedules.get("a") == schedule("a")
    assert await store.schedules.all() == [schedule("a"), schedule("b", next_at=None)]
    assert await store.schedules.delete("a")
    assert not await store.schedules.delete("a")
    assert await store.schedules.all() == [schedule("b", next_at=None)]
    assert await store.schedules.due(10_000, 10) == []


async def test_what_is_due_comes_the_longest_overdue_first(store: Store) -> None:
    for name, next_at in (("a", 3000), ("b", 1000), ("c", 2000), ("d", None), ("e", 9000)):
        await store.schedules.save(schedule(name, next_at))
    assert [found.schedule_id for found in await store.schedules.due(3000, 10)] == ["b", "c", "a"]
    assert [found.schedule_id for found in await store.schedules.due(3000, 2)] == ["b", "c"]


async def test_the_next_time_is_set_once_and_not_over_what_a_person_changed(store: Store) -> None:
    await store.schedules.save(schedule("a"))
    (due,) = await store.schedules.due(1000, 10)
    assert await store.schedules.advance(due, 2000, 1000, "a-1000")
    assert not await store.schedules.advance(due, 2000, 1000, "a-1000")
    known = await store.schedules.get("a")
    assert known == replace(schedule("a"), next_at=2000, last_at=1000, last_job_id="a-1000")
    (due,) = await store.schedules.due(2000, 10)
    await store.schedules.save(replace(schedule("a"), paused=True, next_at=None))
    assert not await store.schedules.advance(due, 3000, 2000, "a-2000")
    known = await store.schedules.get("a")
    assert known is not None
    assert (known.paused, known.next_at, known.last_job_id) == (True, None, "a-1000")
