import random

from muster.control.sweep import Sweep
from muster.domain.job import JobStatus
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
