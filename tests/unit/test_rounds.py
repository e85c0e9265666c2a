import asyncio

import pytest
from structlog.testing import capture_logs

from muster.errors import StoreUnavailable
from muster.rounds import Rounds, ever, wait_up_to
from tests.waiting import eventually

AWAY = StoreUnavailable("away")


class Course:
    """A run that ends each time as it is told to, and then waits to be let go."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = list(ends)
        self.times = 0
        self.over = asyncio.Event()

    async def __call__(self) -> None:
        self.times += 1
        if not self._ends:
            self.over.set()
            await asyncio.Event().wait()
        if (error := self._ends.pop(0)) is not None:
            raise error


async def told_of(course: Course) -> list[str]:
    rounds = Rounds()
    with capture_logs() as logs:
        rounds.go("thing", course, 0)
        async with asyncio.timeout(5):
            await course.over.wait()
        await rounds.stop()
    return [entry["event"] for entry in logs]


async def test_after_a_fault_the_next_round_comes() -> None:
    course = Course(AWAY, None, ValueError("ours"))

    told = await told_of(course)

    assert course.times == 4
    assert told == ["thing_interrupted", "thing_failed"]


async def test_what_goes_wrong_each_time_is_told_once() -> None:
    assert await told_of(Course(AWAY, AWAY, AWAY)) == ["thing_interrupted"]


async def test_what_goes_wrong_again_after_it_went_well_is_told_again() -> None:
    assert await told_of(Course(AWAY, None, AWAY)) == ["thing_interrupted"] * 2


async def test_another_fault_is_told_at_once() -> None:
    told = await told_of(Course(AWAY, StoreUnavailable("still"), AWAY))

    assert told == ["thing_interrupted"] * 3


async def test_the_same_is_told_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.rounds._AGAIN_S", 0.0)

    assert await told_of(Course(AWAY, AWAY)) == ["thing_interrupted"] * 2


async def test_after_a_fault_the_pause_is_that_for_faults() -> None:
    course = Course(AWAY)
    task = asyncio.create_task(ever(course, "thing", pause_s=3600, retry_s=0))
    async with asyncio.timeout(5):
        await course.over.wait()
    task.cancel()

    assert course.times == 2


async def test_what_goes_already_is_not_begun_twice() -> None:
    rounds, course = Rounds(), Course()
    rounds.go("thing", course, 0)
    rounds.go("thing", course, 0)
    await course.over.wait()
    await rounds.stop()

    assert course.times == 1


async def test_it_can_begin_again_after_its_end() -> None:
    rounds, course = Rounds(), Course()
    for _ in range(2):
        assert not rounds
        rounds.go("thing", course, 0)
        assert rounds
        await course.over.wait()
        await rounds.stop()
        course.over.clear()

    assert course.times == 2


async def test_at_the_end_something_is_done_once_more() -> None:
    rounds, last = Rounds(), Course(None)
    await rounds.stop(last=last)
    assert last.times == 0, "there was nothing to end"

    rounds.go("thing", Course(), 0)
    await rounds.stop(last=last)

    assert last.times == 1


async def test_that_the_last_round_went_wrong_is_only_told() -> None:
    rounds = Rounds()
    rounds.go("thing", Course(), 0)
    with capture_logs() as logs:
        await rounds.stop(last=Course(AWAY))

    assert [(entry["event"], entry["of"]) for entry in logs] == [("last_round_interrupted", ["thing"])]


async def test_a_wait_ends_with_its_event_or_its_time() -> None:
    event = asyncio.Event()
    await wait_up_to(event, 0)
    waiting = asyncio.create_task(wait_up_to(event, None))
    event.set()

    assert await eventually(waiting.done)
