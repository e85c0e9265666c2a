"""Following single jobs: one end each, nothing after it, and nothing lost to slowness, gaps or a store that is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from muster.domain.job import JobStatus, Progress
from muster.errors import StoreUnavailable
from muster.events.followers import Change, Follower, Followers, FollowLimits
from muster.ids import JobId
from muster.wire import ProgressReport
from tests.clocks import ManualClock

QUICK = FollowLimits(keep_alive_s=0.01, recheck_s=60.0, retry_s=0.001, jobs_per_look=100)


class Told:
    """A job as the store has it."""

    def __init__(self, job_id: str, status: JobStatus = JobStatus.PENDING, attempt: int = 0) -> None:
        self.job_id = job_id
        self.status = status
        self.attempt = attempt

    @property
    def version(self) -> str:
        return f"{self.attempt}.{self.status}"

    @property
    def final(self) -> bool:
        return self.status is JobStatus.COMPLETED


class Store:
    def __init__(self, *jobs: Told) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.away = 0
        self.looks = 0

    async def whole_jobs(self, job_ids: Sequence[JobId]) -> list[Told]:
        self.looks += 1
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise StoreUnavailable("the store is away")
        return [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]

    def set(self, job_id: str, status: JobStatus, attempt: int = 1) -> None:
        self.jobs[job_id] = Told(job_id, status, attempt)


class Watch:
    def __init__(self, store: Store, limits: FollowLimits = QUICK) -> None:
        self.clock = ManualClock()
        self.store = store
        self.followers = Followers(store, self.clock, limits)

    @asynccontextmanager
    async def following(self, *job_ids: str) -> AsyncIterator[tuple[Follower, AsyncIterator[list[Change]]]]:
        with self.followers.follower() as follower:
            for job_id in job_ids:
                follower.follow(JobId(job_id))
            yield follower, self.followers.changes(follower)

    def moved(self, job_id: str, attempt: int, fraction: float) -> None:
        report = ProgressReport(job_id=JobId(job_id), attempt=attempt, progress=Progress(fraction=fraction))
        self.followers.note_progress(report)


async def heard(changes: AsyncIterator[list[Change]]) -> list[Change]:
    """Return the next changes there are."""
    async with asyncio.timeout(10):
        while not (found := await anext(changes)):
            pass
    return found


async def silence(changes: AsyncIterator[list[Change]]) -> None:
    async with asyncio.timeout(10):
        assert await anext(changes) == []


def states(changes: Sequence[Change]) -> list[str]:
    return [change.job.status if change.job else "moved" if change.progress else "gone" for change in changes]


async def test_the_end_is_told_once_however_often_it_is_noted() -> None:
    watch = Watch(Store(Told("j", JobStatus.IN_PROGRESS, 1)))
    async with watch.following("j") as (follower, changes):
        assert states(await heard(changes)) == ["in_progress"]
        watch.store.set("j", JobStatus.COMPLETED)
        watch.followers.note(["j", "j"])
        assert states(await heard(changes)) == ["completed"]
        watch.followers.note(["j"])
        watch.moved("j", 1, 0.9)
        await silence(changes)
        assert len(follower) == 0
    assert len(watch.followers) == 0


async def test_lesson_no_progress_comes_between_the_end_and_its_telling() -> None:
    watch = Watch(Store(Told("j", JobStatus.IN_PROGRESS, 1)))
    async with watch.following("j") as (_, changes):
        await heard(changes)
        watch.moved("j", 1, 0.9)
        watch.store.set("j", JobStatus.COMPLETED)
        watch.followers.note(["j"])
        assert states(await heard(changes)) == ["completed"]
        await silence(changes)


async def test_progress_of_an_attempt_that_is_over_is_not_told() -> None:
    watch = Watch(Store(Told("j", JobStatus.PENDING, 1)))
    async with watch.following("j") as (_, changes):
        await heard(changes)
        watch.moved("j", 1, 0.9)
        await silence(changes)
        watch.moved("j", 2, 0.1)  # the next attempt's may come before the event of its claim
        assert states(await heard(changes)) == ["moved"]


async def test_a_job_that_ended_before_anybody_followed_is_told_at_once() -> None:
    watch = Watch(Store(Told("j", JobStatus.COMPLETED, 1)))
    async with watch.following("j") as (_, changes):
        assert states(await heard(changes)) == ["completed"]


async def test_a_state_that_is_known_is_not_told_again() -> None:
    watch = Watch(Store(Told("j", JobStatus.IN_PROGRESS, 1)))
    async with watch.following() as (follower, changes):
        follower.follow(JobId("j"), "1.in_progress")
        await silence(changes)
        watch.store.set("j", JobStatus.COMPLETED)
        watch.followers.note(["j"])
        assert states(await heard(changes)) == ["completed"]


async def test_a_store_that_is_away_delays_what_is_told_and_loses_nothing() -> None:
    watch = Watch(Store(Told("j", JobStatus.COMPLETED, 1)))
    watch.store.away = 3
    async with watch.following("j") as (_, changes):
        assert states(await heard(changes)) == ["completed"]
    assert watch.store.looks == 4


async def test_after_a_gap_all_look_for_themselves() -> None:
    watch = Watch(Store(Told("a"), Told("b")))
    async with watch.following("a", "b") as (_, changes):
        await heard(changes)
        watch.store.set("b", JobStatus.COMPLETED)  # and nobody says so
        await silence(changes)
        watch.followers.note_all()
        assert states(await heard(changes)) == ["completed"]


async def test_what_was_lost_unnoticed_is_found_after_a_while() -> None:
    watch = Watch(Store(Told("j")))
    async with watch.following("j") as (_, changes):
        await heard(changes)
        watch.store.set("j", JobStatus.COMPLETED)
        await silence(changes)
        watch.clock.advance(61.0)
        assert states(await heard(changes)) == ["completed"]


async def test_a_slow_follower_is_told_how_it_is_now_and_not_how_it_came_to_it() -> None:
    watch = Watch(Store(Told("j")))
    async with watch.following("j") as (_, changes):
        await heard(changes)
        for attempt in range(1, 1000):
            watch.store.set("j", JobStatus.IN_PROGRESS, attempt)
            watch.followers.note(["j"])
            watch.moved("j", attempt, 0.5)
        assert states(await heard(changes)) == ["in_progress", "moved"]
    assert watch.store.looks == 2


async def test_many_jobs_are_looked_at_some_at_a_time() -> None:
    watch = Watch(Store(*(Told(f"j{number}", JobStatus.COMPLETED) for number in range(250))))
    async with watch.following(*watch.store.jobs) as (_, changes):
        told = [await heard(changes) for _ in range(3)]
    assert [len(part) for part in told] == [100, 100, 50]
    assert {change.job_id for part in told for change in part} == set(watch.store.jobs)


async def test_a_job_that_is_gone_is_told_so_and_followed_no_more() -> None:
    watch = Watch(Store(Told("j")))
    async with watch.following("j") as (follower, changes):
        await heard(changes)
        watch.store.jobs.clear()
        watch.followers.note(["j"])
        (change,) = await heard(changes)
        assert states([change]) == ["gone"]
        assert change.final
        assert JobId("j") not in follower


async def test_who_left_a_job_hears_nothing_of_it_any_more() -> None:
    watch = Watch(Store(Told("j")))
    async with watch.following("j") as (follower, changes):
        follower.leave(JobId("j"))
        watch.followers.note(["j"])
        watch.moved("j", 1, 0.5)
        await silence(changes)


async def test_when_all_stops_the_changes_end() -> None:
    watch = Watch(Store(Told("j")))
    async with watch.following("j") as (_, changes):
        await heard(changes)
        watch.followers.close()
        with pytest.raises(StopAsyncIteration):
            await anext(changes)
