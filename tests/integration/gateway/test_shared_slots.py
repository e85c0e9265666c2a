"""Requests and jobs share an engine's slots: a job takes one when it is given out, and gives it back when it ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from muster.control.fleet.gateway_load import GatewayLoad
from muster.control.jobs.engine_jobs import EngineJobs
from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob
from muster.ids import NodeId, SessionId, WorkerId
from muster.wire import ClaimRequest, OpenSession, Outcome, OutcomeKind
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually

MODEL = "smollm2-135m"
KEY = "node-a/llama"
WORKER = WorkerId("node-a-worker-0")
SESSION = SessionId("s1")


@pytest.fixture
async def plane() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane() as made:
        capability = Capability(services=("llamacpp",), models=(MODEL,))
        await made.jobs.open_session(
            OpenSession(node_id=NodeId("node-a"), worker_id=WORKER, session_id=SESSION, capability=capability)
        )
        yield made


class Shared:
    """A control plane's jobs and a gateway that knows of them; its load is told to others once it is started."""

    def __init__(self, plane: PlaneUnderTest, fleet: FleetTwin, door: Door, *, name: str = "one") -> None:
        self.jobs = EngineJobs(lambda _: fleet.candidates(), plane.store.jobs)
        self.load = GatewayLoad(plane.store.bus, plane.clock, name, beside=lambda: ["another"])
        self.load.count_jobs(self.jobs)
        self.load.join(door.gateway.side)


async def claimed(plane: PlaneUnderTest) -> ClaimedJob:
    await plane.submit(service_required="llamacpp", payload={"model": MODEL})
    reply = await plane.jobs.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1))
    return reply.jobs[0]


async def done(plane: PlaneUnderTest, job: ClaimedJob) -> None:
    outcome = Outcome(job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.COMPLETED)
    await plane.jobs.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=0, done=(outcome,)))


async def asked(door: Door) -> Answer:
    async with await door.wire() as wire:
        wire.send(post("/v1/chat/completions", chat()))
        return await wire.answer()


def waiting(door: Door) -> int:
    return sum(line.waiting for line in door.gateway.view().lines)


async def test_a_job_takes_a_slot_when_it_is_given_out_and_gives_it_back_when_it_ends(plane: PlaneUnderTest) -> None:
    async with Engine() as engine:
        fleet = FleetTwin(worker(engine.url, slots=1))
        async with opened(fleet) as door:
            shared = Shared(plane, fleet, door)
            plane.jobs.watch_attempts(shared.jobs)
            job = await claimed(plane)
            person = asyncio.create_task(asked(door))
            await eventually(lambda: waiting(door) == 1)
            assert engine.requests == []
            assert dict(shared.load.in_flight()) == {}  # what people wait for, and no jobs
            await done(plane, job)
            assert (await person).status == 200
            assert (await asked(door)).status == 200
            assert door.gateway.view().lines == []


async def test_requests_go_where_no_job_is(plane: PlaneUnderTest) -> None:
    async with Engine() as engine, Engine() as other:
        fleet = FleetTwin(worker(engine.url, slots=1), worker(other.url, "node-b", slots=1))
        async with opened(fleet) as door:
            shared = Shared(plane, fleet, door)
            shared.jobs.began(WORKER, [await claimed(plane)])
            (taken,) = shared.jobs.counts
            free = ({KEY, "node-b/llama"} - {taken}).pop()
            assert {(await asked(door)).headers["x-muster-worker"] for _ in range(3)} == {free}


async def test_jobs_of_another_control_plane_are_heard_of_at_once_and_forgotten_with_it(plane: PlaneUnderTest) -> None:
    async with Engine() as engine:
        fleet = FleetTwin(worker(engine.url, slots=1))
        async with opened(fleet) as door, opened(fleet) as elsewhere:
            here, there = Shared(plane, fleet, door), Shared(plane, fleet, elsewhere, name="two")
            plane.jobs.watch_attempts(there.jobs)
            for one in (here, there):
                await one.load.start()
            try:
                job = await claimed(plane)
                person = asyncio.create_task(asked(door))
                await eventually(lambda: waiting(door) == 1)
                await done(plane, job)
                assert (await person).status == 200
                await claimed(plane)
                await eventually(lambda: door.gateway._router.in_flight == {KEY: 1})
                await there.load.stop()  # as when it is killed
                plane.clock.advance(10)
                await eventually(lambda: door.gateway._router.in_flight == {})
            finally:
                for one in (here, there):
                    await one.load.stop()
