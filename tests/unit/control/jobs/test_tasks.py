import pytest

from muster.control.jobs.tasks import TaskDesk
from muster.domain.job import Job, JobSpec, JobState, JobStatus, Requirements
from muster.domain.model import Model
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import ModelNotAvailable, QueueFull
from muster.ids import JobId
from tests.planes import PlaneUnderTest


def spec(name: str = "", model: str | None = "m") -> JobSpec:
    requirements = Requirements(models=(model,) if model else ())
    return JobSpec(job_id=JobId(name), service_required="openai", payload={}, requirements=requirements)


async def with_model(plane: PlaneUnderTest, slots: int = 2) -> None:
    service = Service(
        name="s",
        connector="openai",
        status=ServiceStatus.RUNNING,
        url="http://h:1",
        dialects=(Dialect.OPENAI,),
        models=(Model(name="m"),),
        slots=slots,
    )
    await plane.heartbeat(services=(service,))


def ended(took_ms: int) -> Job:
    return Job(spec=spec("t"), state=JobState(status=JobStatus.COMPLETED, started_at=1000, completed_at=1000 + took_ms))


async def test_a_model_of_nobodys_is_refused_and_nothing_stored() -> None:
    plane = PlaneUnderTest()
    desk = TaskDesk(plane.jobs, plane.fleet, waiting_max=10)
    with pytest.raises(ModelNotAvailable):
        await desk.admit(spec())
    assert sum((await plane.jobs.counts()).values()) == 0


async def test_a_model_that_only_a_worker_has_is_taken() -> None:
    plane = PlaneUnderTest()
    await plane.open_session(models=("m",))
    assert (await TaskDesk(plane.jobs, plane.fleet, waiting_max=10).admit(spec())).queue_position == 0


async def test_when_a_task_begins_is_guessed_by_how_long_others_took_and_how_many_run_at_a_time() -> None:
    plane = PlaneUnderTest()
    await with_model(plane, slots=2)
    desk = TaskDesk(plane.jobs, plane.fleet, waiting_max=10)
    assert (await desk.admit(spec("t1"))).predicted_start_ms is None
    desk.ended(ended(1000))
    assert (await desk.admit(spec("t2"))).predicted_start_ms == 500
    desk.ended(ended(2000))  # 1,200 on average, the newest counting for a fifth
    assert (await desk.admit(spec("t3"))).predicted_start_ms == 1200


async def test_a_refusal_says_when_a_place_is_likely() -> None:
    plane = PlaneUnderTest()
    await with_model(plane, slots=2)
    desk = TaskDesk(plane.jobs, plane.fleet, waiting_max=1)
    await desk.admit(spec("t1"))
    with pytest.raises(QueueFull) as refused:
        await desk.admit(spec("t2"))
    assert refused.value.retry_after_s == 1.0  # nothing is known yet
    desk.ended(ended(5000))
    with pytest.raises(QueueFull) as refused:
        await desk.admit(spec("t2"))
    assert refused.value.retry_after_s == 2.5
