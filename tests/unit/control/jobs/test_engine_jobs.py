"""Jobs that keep engines at work: counted as they are given out, until they end, wherever that comes about."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.control.jobs.engine_jobs import EngineJobs
from muster.domain.event import Event, LoggedEvent
from muster.domain.job import JobError
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind
from tests.planes import PlaneUnderTest, running_plane
from tests.unit.placement.makers import candidate
from tests.waiting import eventually

ENGINE = candidate("n1", "m", slots=1)
KEY = ENGINE.key


class Seen:
    def __init__(self, plane: PlaneUnderTest) -> None:
        self.changes: list[dict[str, int]] = []
        self.jobs = EngineJobs(lambda node: (ENGINE,) if node == "n1" else (), plane.store.jobs)
        self.jobs.on_change(lambda changes: self.changes.append(dict(changes)))
        plane.jobs.watch_attempts(self.jobs)
        plane.hub.on_facts(self.jobs.hear)


@pytest.fixture
async def plane() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane() as made:
        await made.open_session(models=("m",))
        yield made


@pytest.fixture
def seen(plane: PlaneUnderTest) -> Seen:
    return Seen(plane)


async def begun(plane: PlaneUnderTest, name: str = "a", **fields: Any) -> tuple[JobId, int]:
    await plane.submit(name, **({"service_required": "simulation", "payload": {"model": "m"}} | fields))
    (job,) = (await plane.claim()).jobs
    return job.spec.job_id, job.attempt


def outcome(job: tuple[JobId, int], kind: OutcomeKind) -> Outcome:
    error = JobError(code="broken", message="broken") if kind is OutcomeKind.FAILED else None
    return Outcome(job_id=job[0], attempt=job[1], kind=kind, error=error)


def of_engine(seen: Seen) -> None:
    """Have the simulation's jobs count as those of the engine, which a session of these tests can run."""
    seen.jobs._engines_at = lambda _: (candidate("n1", "m", connector="simulation"),)


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_a_job_is_counted_until_its_worker_says_how_it_ended(
    plane: PlaneUnderTest, seen: Seen, kind: OutcomeKind
) -> None:
    of_engine(seen)
    job = await begun(plane)
    assert seen.jobs.counts == {KEY: 1}
    await plane.claim(want=0, done=(outcome(job, kind),))
    assert (seen.jobs.counts, seen.changes) == ({}, [{KEY: 1}, {KEY: -1}])


async def test_what_no_engine_of_the_node_runs_is_not_counted(plane: PlaneUnderTest, seen: Seen) -> None:
    await begun(plane)
    assert seen.changes == []


async def test_an_end_that_came_about_elsewhere_is_heard_from_the_log(plane: PlaneUnderTest, seen: Seen) -> None:
    of_engine(seen)
    job_id, _ = await begun(plane)
    await plane.jobs.end(job_id)
    await eventually(lambda: seen.jobs.counts == {})


async def test_an_old_end_does_not_count_for_a_later_attempt(plane: PlaneUnderTest, seen: Seen) -> None:
    of_engine(seen)
    job_id, attempt = await begun(plane)

    def ended(attempts: list[int], kind: str = "job_retrying") -> LoggedEvent:
        data = {"worker_id": "n1-worker-0", "attempts": attempts}
        return LoggedEvent(id="1", event=Event(kind=kind, key=job_id, at_ms=0, data=data))

    seen.jobs.hear([ended([attempt - 1]), ended([attempt], "job_started"), ended([])])
    assert seen.jobs.counts == {KEY: 1}
    seen.jobs.hear([ended([attempt])])
    seen.jobs.hear([ended([attempt])])
    assert seen.jobs.counts == {}


async def test_what_ended_without_a_word_is_found_by_looking(plane: PlaneUnderTest, seen: Seen) -> None:
    of_engine(seen)
    ended_id, attempt = await begun(plane)
    await begun(plane, "b")
    plane.hub._on_facts.clear()
    await plane.jobs.end(ended_id)
    assert seen.jobs.counts == {KEY: 2}
    await seen.jobs.look()
    assert seen.jobs.counts == {KEY: 1}
    assert attempt == 1


async def test_it_looks_by_itself_while_it_runs(plane: PlaneUnderTest, seen: Seen) -> None:
    of_engine(seen)
    job_id, _ = await begun(plane)
    plane.hub._on_facts.clear()
    await plane.jobs.end(job_id)
    await seen.jobs.stop()
    for _ in range(2):
        await seen.jobs.start()
    await eventually(lambda: seen.jobs.counts == {})
    await seen.jobs.stop()
