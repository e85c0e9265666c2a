import random

from muster.control.sweep import Sweep
from muster.domain.job import JobStatus
from muster.domain.node import Health
from muster.ids import NodeId
from muster.jobs.retry import RetryPolicy
from tests.planes import LEASE_S, PlaneUnderTest


async def test_leases_that_ended_in_our_absence_get_one_more_lease_of_time(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    plane.clock.advance(LEASE_S + 1)
    restarted = Sweep(
        plane.fleet,
        plane.store.jobs,
        plane.store.jobs,
        plane.clock,
        random.Random(1),
        every_s=3600.0,
        retry_policy=RetryPolicy(),
        retention_s=3600.0,
        ended_max=100,
        patience_s=LEASE_S,
    )
    await restarted.start()
    await restarted.sweep_jobs()
    assert await plane.status(job_id) is JobStatus.ASSIGNED
    plane.clock.advance(LEASE_S)
    await restarted.sweep_jobs()
    assert (await plane.jobs.get(job_id)).state.retry_count == 1
    await restarted.stop()


def swept(plane: PlaneUnderTest, leads: list[bool], done: list[str]) -> Sweep:
    """Return a sweep that leads while the last entry of `leads` says so, and notes what else it does."""

    async def also() -> None:
        done.append("also")

    return Sweep(
        plane.fleet,
        plane.store.jobs,
        plane.store.jobs,
        plane.clock,
        random.Random(1),
        every_s=3600.0,
        retry_policy=RetryPolicy(),
        retention_s=3600.0,
        ended_max=100,
        patience_s=LEASE_S,
        also=(also,),
        leads=lambda: leads[-1],
    )


async def test_only_the_one_that_leads_does_what_is_done_once(plane: PlaneUnderTest) -> None:
    leads, done = [False], list[str]()
    sweep = swept(plane, leads, done)
    await plane.heartbeat("n1")
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    plane.clock.advance(LEASE_S + 50)
    await sweep.sweep()
    assert plane.fleet.node(NodeId("n1")).health is Health.HEALTHY
    assert plane.fleet.is_late(plane.fleet.node(NodeId("n1")))
    assert (await plane.status(job_id), done) == (JobStatus.ASSIGNED, [])

    leads.append(True)
    await sweep.sweep()
    assert plane.fleet.node(NodeId("n1")).health is Health.STALE
    assert (await plane.status(job_id), done) == (
        JobStatus.ASSIGNED,
        ["also"],
    )
    plane.clock.advance(LEASE_S)
    await sweep.sweep()
    assert (await plane.jobs.get(job_id)).state.retry_count == 1


async def test_while_it_suspects_itself_leases_are_left_alone_and_get_their_time_afterwards(
    plane: PlaneUnderTest,
) -> None:
    sweep = swept(plane, [True], [])
    names = [f"n{number}" for number in range(6)]
    for name in names:
        await plane.heartbeat(name)
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    plane.clock.advance(35)
    await sweep.sweep()
    doubted = plane.fleet.book.suspects_itself
    for name in names:
        await plane.heartbeat(name, seq=2)
    await sweep.sweep()
    assert (doubted, plane.fleet.book.suspects_itself) == (True, False)
    plane.clock.advance(LEASE_S - 1)
    await sweep.sweep()
    assert await plane.status(job_id) is JobStatus.ASSIGNED
    plane.clock.advance(1)
    await sweep.sweep()
    assert (await plane.jobs.get(job_id)).state.retry_count == 1
