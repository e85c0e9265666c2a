import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from muster.domain.capability import Capability
from muster.domain.job import JobError, JobSpec, JobStatus, Progress, Requirements
from muster.errors import InvalidInput, JobNotFound, PayloadTooLarge, StoreUnavailable
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.wire import CloseSession, OpenSession, Outcome, OutcomeKind, ProgressReport, ProgressReports, RenewRequest
from tests.planes import LEASE_S, PlaneUnderTest, running_plane
from tests.waiting import eventually


def failed(job_id: JobId, attempt: int, *, retriable: bool = True) -> Outcome:
    error = JobError(code="broken", message="it broke", retriable=retriable)
    return Outcome(job_id=job_id, attempt=attempt, kind=OutcomeKind.FAILED, error=error)


async def test_a_submitted_job_gets_an_id_and_a_time(plane: PlaneUnderTest) -> None:
    job = await plane.jobs.get(await plane.submit())
    assert job.job_id.startswith("job-")
    assert job.spec.created_at == plane.clock.now_ms()


async def test_an_id_of_ones_own_makes_the_submit_repeatable(plane: PlaneUnderTest) -> None:
    assert await plane.submit("mine") == await plane.submit("mine") == "mine"
    assert (await plane.jobs.counts())[JobStatus.UNWORKABLE] == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"priority": 101}, "priority"),
        ({"service_required": "no such/name"}, "service_required"),
        ({"payload": "x" * 2000}, "payload"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_stored(
    plane: PlaneUnderTest, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await plane.submit(**fields)
    assert caught.value.field == field
    assert (await plane.jobs.counts())[JobStatus.PENDING] == 0


async def test_a_payload_is_checked_by_its_connector_before_anything_is_stored() -> None:
    def check(payload: object) -> None:
        raise InvalidInput("no steps", field="payload.steps")

    async with running_plane(checks={"simulation": check}) as plane:
        with pytest.raises(InvalidInput, match="no steps"):
            await plane.submit()
        assert (await plane.jobs.counts())[JobStatus.PENDING] == 0


async def test_who_is_not_told_what_was_stored_is_told_the_ids_to_ask_for(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(specs: list[JobSpec]) -> None:
        raise StoreUnavailable("it went in the middle")

    monkeypatch.setattr(plane.store.jobs, "submit", breaks)
    with pytest.raises(StoreUnavailable) as caught:
        await plane.jobs.submit([JobSpec(job_id=JobId(name), service_required="simulation") for name in ("mine", "")])
    mine, made = caught.value.to_dict()["job_ids"]
    assert mine == "mine"
    assert made.startswith("job-")


async def test_too_large_a_payload_has_its_own_status(plane: PlaneUnderTest) -> None:
    with pytest.raises(PayloadTooLarge):
        await plane.submit(payload=["x" * 100] * 20)


async def test_a_job_nobody_can_run_is_shown_as_unworkable_with_the_reason(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit(service_required="comfyui")
    assert await plane.status(job_id) is JobStatus.UNWORKABLE
    assert "comfyui" in (await plane.jobs.explain(job_id)).summary
    assert [job.job_id for job in (await plane.jobs.page(JobStatus.UNWORKABLE, None, 10)).jobs] == [job_id]
    assert [job.job_id for job in (await plane.jobs.page(JobStatus.PENDING, None, 10)).jobs] == []


async def test_an_unworkable_job_becomes_pending_when_somebody_can_run_it(plane: PlaneUnderTest) -> None:
    job_id = await plane.submit()
    assert await plane.status(job_id) is JobStatus.UNWORKABLE
    await plane.open_session()
    assert await plane.status(job_id) is JobStatus.PENDING


async def test_an_unknown_job_is_not_found(plane: PlaneUnderTest) -> None:
    with pytest.raises(JobNotFound):
        await plane.jobs.get(JobId("job-none"))


async def test_a_claim_that_waits_gets_the_job_that_comes(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    waiting = asyncio.create_task(plane.claim(wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 1)
    job_id = await plane.submit()
    reply = await asyncio.wait_for(waiting, 5)
    assert [job.spec.job_id for job in reply.jobs] == [job_id]
    assert plane.jobs.waiters == 0


async def test_several_waiters_share_what_comes_in_one_burst(plane: PlaneUnderTest) -> None:
    tasks = []
    for number in range(3):
        await plane.open_session(f"s{number}", f"n{number}")
        tasks.append(asyncio.create_task(plane.claim(f"s{number}", f"n{number}", wait_s=30)))
    await eventually(lambda: plane.jobs.waiters == 3)
    submitted = {await plane.submit() for _ in range(3)}
    replies = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert {job.spec.job_id for reply in replies for job in reply.jobs} == submitted


async def test_a_waiter_that_leaves_passes_its_wake_up_on(plane: PlaneUnderTest) -> None:
    await plane.open_session("s1", "n1")
    await plane.open_session("s2", "n2")
    leaving = asyncio.create_task(plane.claim("s1", "n1", wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 1)
    staying = asyncio.create_task(plane.claim("s2", "n2", wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 2)
    leaving.cancel()
    job_id = await plane.submit()
    reply = await asyncio.wait_for(staying, 10)
    assert [job.spec.job_id for job in reply.jobs] == [job_id]


async def test_a_claim_without_a_session_is_told_to_open_one(plane: PlaneUnderTest) -> None:
    assert not (await plane.claim(wait_s=30)).session_known


async def test_lesson_a_session_must_belong_to_a_worker_of_its_node(plane: PlaneUnderTest) -> None:
    with pytest.raises(InvalidInput) as caught:
        await plane.jobs.open_session(
            OpenSession(
                node_id=NodeId("n1"),
                worker_id=WorkerId("other-worker-0"),
                session_id=SessionId("s"),
                capability=Capability(),
            )
        )
    assert caught.value.field == "worker_id"


async def test_a_failure_is_retried_after_its_wait_and_then_fails_for_good(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit(max_retries=1)
    await plane.claim()
    await plane.claim(want=0, done=(failed(job_id, 1),))
    job = await plane.jobs.get(job_id)
    assert (job.state.status, job.state.retry_count) == (JobStatus.PENDING, 1)
    assert job.state.next_attempt_at == plane.clock.now_ms() + 1000
    plane.clock.advance(1)
    await plane.sweep.sweep_jobs()
    plane.clock.advance(LEASE_S * 4)  # long enough that the worker which failed may have it again
    await plane.open_session()
    await plane.sweep.sweep_jobs()
    (again,) = (await plane.claim()).jobs
    assert again.attempt == 2
    await plane.claim(want=0, done=(failed(job_id, 2),))
    job = await plane.jobs.get(job_id)
    assert job.state.status is JobStatus.FAILED
    assert job.state.error is not None
    assert job.state.error.message == "it broke"


async def test_a_failure_that_cannot_pass_is_not_retried(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    await plane.claim(want=0, done=(failed(job_id, 1, retriable=False),))
    assert await plane.status(job_id) is JobStatus.FAILED


async def test_a_result_of_a_lost_lease_is_refused(plane: PlaneUnderTest) -> None:
    await plane.open_session("s1", "n1")
    job_id = await plane.submit()
    await plane.claim("s1", "n1")
    plane.clock.advance(LEASE_S + 1)
    await plane.sweep.sweep_jobs()
    await plane.open_session("s2", "n2")
    (again,) = (await plane.claim("s2", "n2")).jobs
    await plane.open_session("s1", "n1")
    late = Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.COMPLETED)
    assert (await plane.claim("s1", "n1", want=0, done=(late,))).refused == (job_id,)
    done = Outcome(job_id=job_id, attempt=again.attempt, kind=OutcomeKind.COMPLETED)
    assert (await plane.claim("s2", "n2", want=0, done=(done, done))).refused in ((), (job_id,))
    assert await plane.status(job_id) is JobStatus.COMPLETED


async def test_a_worker_that_stops_politely_returns_its_job_without_counting_the_attempt(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    await plane.claim(want=0, done=(Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.RETURNED),))
    job = await plane.jobs.get(job_id)
    assert (job.state.status, job.state.retry_count) == (JobStatus.PENDING, 0)


async def test_closing_a_session_gives_its_jobs_back(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    await plane.jobs.close_session(CloseSession(session_id=SessionId("s1"), worker_id=WorkerId("n1-worker-0")))
    assert (await plane.jobs.get(job_id)).state.status is JobStatus.UNWORKABLE  # waits, and nobody is left


async def test_a_renewal_tells_what_is_lost(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    await plane.jobs.cancel(job_id)
    reply = await plane.jobs.renew(
        RenewRequest(session_id=SessionId("s1"), worker_id=WorkerId("n1-worker-0"), held=((job_id, 1),))
    )
    assert reply.lost == (job_id,)
    assert reply.session_known


async def test_progress_is_kept_and_told(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(fraction=0.5, message="half"))
    reply = await plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(report,)))
    assert reply.lost == ()
    job = await plane.jobs.get(job_id)
    assert job.state.status is JobStatus.IN_PROGRESS
    assert job.state.progress is not None
    assert job.state.progress.fraction == 0.5


async def test_an_attempt_over_its_time_is_ended_as_timeout_when_no_retry_is_left(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit(timeout_s=5.0, max_retries=0)
    await plane.claim()
    plane.clock.advance(6)
    await plane.sweep.sweep_jobs()
    assert await plane.status(job_id) is JobStatus.TIMEOUT


async def test_a_lost_wake_up_costs_a_look_and_nothing_else(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.control.jobs.service._LOOK_AGAIN_S", 0.01)
    await plane.open_session()
    await plane.jobs._rounds.stop()  # nobody listens to the bus
    waiting = asyncio.create_task(plane.claim(wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 1)
    job_id = await plane.submit()
    reply = await asyncio.wait_for(waiting, 5)
    assert [job.spec.job_id for job in reply.jobs] == [job_id]


async def test_what_came_before_the_bus_is_heard_is_looked_for_once_it_is(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.control.jobs.service._LOOK_AGAIN_S", 30.0)
    subscribe, heard = plane.store.bus.subscribe, asyncio.Event()

    async def late(topic: str, ready: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        await heard.wait()
        async for data in subscribe(topic, ready):
            yield data

    monkeypatch.setattr(plane.store.bus, "subscribe", late)
    await plane.open_session()
    await plane.jobs._rounds.stop()
    await plane.jobs.start()
    waiting = asyncio.create_task(plane.claim(wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 1)
    job_id = await plane.submit()
    heard.set()
    reply = await asyncio.wait_for(waiting, 5)
    assert [job.spec.job_id for job in reply.jobs] == [job_id]


async def test_a_stop_lets_go_of_those_who_wait(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    waiting = asyncio.create_task(plane.claim(wait_s=30))
    await eventually(lambda: plane.jobs.waiters == 1)
    await plane.jobs.stop()
    assert (await asyncio.wait_for(waiting, 5)).jobs == ()


async def test_the_model_that_a_payload_names_is_required_of_the_worker(plane: PlaneUnderTest) -> None:
    await plane.open_session("s1", "n1", models=("small",))
    unable = await plane.submit(payload={"model": "large"})
    assert "lacks the model large" in (await plane.jobs.explain(unable)).summary
    able = await plane.submit(payload={"model": "small:latest"})
    (claimed,) = (await plane.claim("s1", "n1")).jobs
    assert claimed.spec.job_id == able


async def test_requirements_win_over_the_payloads_model(plane: PlaneUnderTest) -> None:
    await plane.open_session("s1", "n1", models=("small",))
    await plane.submit(payload={"model": "an alias"}, requirements=Requirements(models=("small",)))
    assert len((await plane.claim("s1", "n1")).jobs) == 1


async def test_a_worker_that_leaves_is_no_hope_any_more(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    assert await plane.status(job_id) is JobStatus.PENDING
    await plane.jobs.close_session(CloseSession(session_id=SessionId("s1"), worker_id=WorkerId("n1-worker-0")))
    assert await plane.status(job_id) is JobStatus.UNWORKABLE
