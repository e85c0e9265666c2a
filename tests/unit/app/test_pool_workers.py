"""The control plane's own workers for nodes that only run engines."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.app.pool_workers import PoolWorkers
from muster.domain.job import JobSpec, JobStatus, Requirements
from muster.ids import JobId, NodeId
from muster.wire.pools import PoolHeartbeat, PoolStatus, RegisterNode
from tests.integration.gateway.engine import TOKENS, Engine
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually


async def report(plane: PlaneUnderTest, engine: Engine, *, ready: bool = True) -> None:
    pools = plane.plane.pools
    if plane.fleet.book.get(NodeId("n1")) is None:
        await pools.register(RegisterNode(node_id="n1", address=engine.url))
    status = PoolStatus(pool_id="p", ready=ready, slots_total=1, models_available=["m"])
    await pools.heartbeat(NodeId("n1"), PoolHeartbeat(pools=[status]))


@asynccontextmanager
async def workers(plane: PlaneUnderTest, *, leads: bool = True) -> AsyncIterator[None]:
    pool_workers = PoolWorkers(
        plane.fleet, plane.plane.pools, plane.jobs, None, plane.clock, random.Random(1), leads=lambda: leads
    )
    await pool_workers.start()
    try:
        yield
    finally:
        await pool_workers.stop()


async def submit(plane: PlaneUnderTest) -> JobId:
    spec = JobSpec(
        job_id=JobId(""),
        service_required="openai",
        payload={"prompt": "hi"},
        requirements=Requirements(models=("m",), custom={"pool": "n1/p"}),
    )
    (submitted,) = await plane.jobs.submit([spec])
    return submitted.job_id


async def sessions(plane: PlaneUnderTest) -> int:
    return sum(entry.sessions for entry in await plane.store.jobs.classes())


async def test_a_task_is_done_by_the_pools_engine() -> None:
    async with Engine() as engine, running_plane() as plane, workers(plane):
        await report(plane, engine)
        job_id = await submit(plane)

        async def done() -> bool:
            return await plane.status(job_id) is JobStatus.COMPLETED

        await eventually(done)
        job = await plane.jobs.get(job_id)
        assert job.state.worker_id == "n1-worker-0"
        assert "".join(TOKENS).encode() in bytes(job.state.result)  # type: ignore[arg-type]  # it has one
        assert engine.requests[0].json["model"] == "m"


async def test_a_pool_that_is_not_ready_has_no_worker_yet() -> None:
    async with Engine() as engine, running_plane() as plane, workers(plane):
        await report(plane, engine, ready=False)
        job_id = await submit(plane)
        assert await sessions(plane) == 0
        await report(plane, engine)

        async def done() -> bool:
            return await plane.status(job_id) is JobStatus.COMPLETED

        await eventually(done)


async def test_a_node_that_says_goodbye_takes_its_workers_with_it() -> None:
    async with Engine() as engine, running_plane() as plane, workers(plane):
        await report(plane, engine)
        await eventually(lambda: sessions(plane))
        await plane.plane.pools.deregister(NodeId("n1"))

        async def gone() -> bool:
            return await sessions(plane) == 0

        await eventually(gone)
