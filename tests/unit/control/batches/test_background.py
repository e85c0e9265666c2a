"""Who gives way: background work begins where nobody waits, by the counts of all gateways."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.control.batches.background import Background
from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, JobSpec, JobStatus
from muster.domain.model import Model
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.wire import OpenSession
from tests.planes import PlaneUnderTest, running_plane

WORKER = WorkerId("n1-worker-0")
ENGINE = "n1/llm"


@pytest.fixture
async def plane() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane() as made:
        await node(made, "n1")
        yield made


async def node(plane: PlaneUnderTest, name: str, seq: int = 1, jobs: tuple[str, ...] = (), **service: Any) -> None:
    base: dict[str, Any] = {
        "name": "llm",
        "connector": "llamacpp",
        "status": ServiceStatus.RUNNING,
        "url": "http://10.0.0.1:1",
        "dialects": (Dialect.OPENAI,),
        "models": (Model(name="m", capabilities=("completion",)),),
        "slots": 4,
    }
    worker = Worker(
        worker_id=WorkerId(f"{name}-worker-0"),
        index=0,
        status=WorkerStatus.IDLE,
        slots=3,
        current_jobs=tuple(map(JobId, jobs)),
    )
    await plane.heartbeat(name, seq, services=(Service(**(base | service)),), workers=(worker,))


def background(plane: PlaneUnderTest, **in_flight: int) -> Background:
    return Background(
        plane.fleet, plane.fleet.nodes, lambda: {key.replace("_", "/"): n for key, n in in_flight.items()}
    )


def claimed(priority: int = 0, payload: Any = None) -> ClaimedJob:
    spec = JobSpec(job_id=JobId("j"), service_required="openai", priority=priority, payload=payload or {"model": "m"})
    return ClaimedJob(spec=spec, attempt=1, deadline_ms=0)


async def test_room_is_what_nobody_uses(plane: PlaneUnderTest) -> None:
    assert background(plane).room("m", "completion") == 3
    assert background(plane, n1_llm=1).room("m", "completion") == 1
    assert background(plane, n1_llm=4).room("m", "completion") == 0
    assert background(plane).room("other", "completion") == 0


async def test_other_jobs_take_room_and_those_of_batches_are_the_room(plane: PlaneUnderTest) -> None:
    await node(plane, "n1", 2, jobs=("job-1", "batch-1-7"), slots_busy=4)
    assert background(plane).room("m", "completion") == 2


async def test_background_work_does_not_begin_beside_a_full_engine(plane: PlaneUnderTest) -> None:
    full = background(plane, n1_llm=4)
    assert not full.may_begin(WORKER, claimed())
    assert full.may_begin(WORKER, claimed(priority=1))
    assert full.may_begin(WorkerId("n2-worker-0"), claimed())
    assert full.may_begin(WORKER, claimed(payload={"model": "unknown"}))
    assert full.may_begin(WORKER, claimed(payload=["no", "model"]))
    assert background(plane, n1_llm=3).may_begin(WORKER, claimed())


async def test_a_job_for_a_model_that_is_waited_for_begins_only_if_it_matters_more(plane: PlaneUnderTest) -> None:
    waited_for = Background(plane.fleet, plane.fleet.nodes, dict, {"m": 50}.get)
    assert [waited_for.may_begin(WORKER, claimed(priority)) for priority in (0, 50, 51)] == [False, False, True]
    assert waited_for.may_begin(WORKER, claimed(50, {"model": "other"}))
    assert waited_for.may_begin(WorkerId("n2-worker-0"), claimed(50))


async def test_what_must_not_begin_is_put_back_uncounted_and_begins_when_there_is_room() -> None:
    free = False
    async with running_plane(may_begin=lambda _worker, job: free or job.spec.priority > 0) as plane:
        able = Capability(services=("openai",), models=("m",))
        message = OpenSession(node_id=NodeId("n1"), worker_id=WORKER, session_id=SessionId("s1"), capability=able)
        await plane.jobs.open_session(message)
        waits = await plane.submit("waits", service_required="openai", priority=0)
        urgent = await plane.submit("urgent", service_required="openai", priority=1)

        assert [job.spec.job_id for job in (await plane.claim(want=5)).jobs] == [urgent]
        assert await plane.status(waits) is JobStatus.PENDING
        assert (await plane.claim(want=5)).jobs == ()  # not again at once

        free = True
        plane.clock.advance(2)
        await plane.sweep.sweep_jobs()
        (job,) = (await plane.claim(want=5)).jobs
        assert job.spec.job_id == waits
        assert (await plane.jobs.get(waits)).state.retry_count == 0
