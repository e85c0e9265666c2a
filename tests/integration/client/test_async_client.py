"""The client on asyncio, against a control plane in memory behind the real front."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.client import AsyncClient, Job, JobFailed, NewJob, WaitTimedOut
from muster.domain.job import JobError, Progress, encode_result
from muster.errors import Forbidden, InvalidInput, InvalidTransition, JobNotFound, Unauthorized
from muster.ids import JobId, SessionId
from muster.wire import Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.integration.api.conftest import Served, serving
from tests.planes import PlaneUnderTest
from tests.waiting import eventually


def done(job_id: str, attempt: int = 1, result: Any = None) -> Outcome:
    return Outcome(
        job_id=JobId(job_id), attempt=attempt, kind=OutcomeKind.COMPLETED, result=encode_result(result or {"n": 1})
    )


async def work(plane: PlaneUnderTest) -> None:
    """Do jobs as they come, each in an instant: the result is what the payload was."""
    await plane.open_session()
    finished: tuple[Outcome, ...] = ()
    while True:
        reply = await plane.claim(want=7, done=finished, wait_s=0.0 if finished else 1.0)
        finished = tuple(done(job.spec.job_id, job.attempt, {"saw": job.spec.payload}) for job in reply.jobs)


@pytest.fixture
async def worker(served: Served) -> Any:
    task = asyncio.create_task(work(served.plane))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- giving and looking -----------------------------------------------------------------------------------------------


async def test_a_job_is_submitted_and_read(client: AsyncClient) -> None:
    job = await client.submit("simulation", {"a": 1}, priority=70, requirements={"labels": {"zone": "a"}})
    assert (job.service_required, job.priority, job.done) == ("simulation", 70, False)
    assert (await client.get(job.job_id)).payload == {"a": 1}
    assert "zone" in (await client.explain(job.job_id))["summary"] or (await client.explain(job.job_id))["job_id"]


async def test_a_submit_that_is_repeated_makes_no_second_job(client: AsyncClient) -> None:
    ids = {(await client.submit("simulation", job_id="mine")).job_id for _ in range(2)}
    assert ids == {"mine"}
    assert [job.job_id async for job in client.jobs()] == ["mine"]


async def test_many_are_submitted_in_their_order(client: AsyncClient) -> None:
    job_ids = await client.submit_many(NewJob("simulation", {"n": n}) for n in range(1100))
    assert len(set(job_ids)) == 1100
    assert [(await client.get(job_ids[n])).payload["n"] for n in (0, 499, 500, 1099)] == [0, 499, 500, 1099]


async def test_the_list_goes_on_over_its_pages(client: AsyncClient) -> None:
    job_ids = await client.submit_many([NewJob("simulation")] * 25)
    assert [job.job_id async for job in client.jobs("unworkable", page_size=10)] == job_ids


async def test_errors_are_those_of_the_control_plane(client: AsyncClient) -> None:
    with pytest.raises(JobNotFound):
        await client.get("none")
    with pytest.raises(InvalidInput) as refused:
        await client.submit("simulation", priority=1000)
    assert refused.value.field == "priority"
    assert str(refused.value.data["correlation_id"]).startswith("cli-")
    with pytest.raises(JobNotFound):
        await client.wait("none", 10)


async def test_a_correlation_id_of_ones_own_is_sent_with_all(served: Served) -> None:
    async with AsyncClient(served.url, token="", correlation_id="order-7") as client:
        with pytest.raises(JobNotFound) as refused:
            await client.get("none")
    assert refused.value.data["correlation_id"] == "order-7"


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_job_that_ends_in_an_instant_is_waited_for(client: AsyncClient, worker: object) -> None:
    for _ in range(20):
        job = await client.submit("simulation", {"a": 1})
        ended = await client.wait(job.job_id, 10)
        assert (ended.ok, ended.result) == (True, {"saw": {"a": 1}})


async def test_a_job_that_ended_before_is_waited_for(client: AsyncClient, worker: object) -> None:
    job = await client.submit("simulation")
    first = await client.wait(job.job_id, 10)
    assert await client.wait(job.job_id, 10) == first
    assert await client.result(job.job_id, 10) == {"saw": None}


async def test_run_gives_the_result(client: AsyncClient, worker: object) -> None:
    assert await client.run("simulation", {"x": 2}, wait_s=10) == {"saw": {"x": 2}}


async def test_a_job_without_result_is_an_error_that_has_the_job(served: Served, client: AsyncClient) -> None:
    await served.plane.open_session()
    job = await client.submit("simulation", max_retries=0)
    await served.plane.claim()
    failed = Outcome(
        job_id=JobId(job.job_id),
        attempt=1,
        kind=OutcomeKind.FAILED,
        error=JobError(code="broke", message="it broke", retriable=False),
    )
    await served.plane.claim(want=0, done=(failed,))
    with pytest.raises(JobFailed, match="it broke") as raised:
        await client.result(job.job_id, 10)
    assert raised.value.job.error is not None
    assert raised.value.job.error.code == "broke"


async def test_a_wait_has_a_deadline_and_the_job_goes_on(client: AsyncClient) -> None:
    job = await client.submit("simulation")
    with pytest.raises(WaitTimedOut, match="it goes on"):
        await client.wait(job.job_id, 0.2)
    assert not (await client.get(job.job_id)).done


async def test_a_job_is_cancelled_while_somebody_waits(client: AsyncClient) -> None:
    job = await client.submit("simulation")
    waiting = asyncio.create_task(client.wait(job.job_id, 10))
    assert (await client.cancel(job.job_id)).status == "cancelled"
    assert (await waiting).status == "cancelled"
    assert (await client.cancel(job.job_id)).status == "cancelled"
    assert not (await client.retry(job.job_id)).done


async def test_what_completed_cannot_be_cancelled(client: AsyncClient, worker: object) -> None:
    job = await client.submit("simulation")
    await client.wait(job.job_id, 10)
    with pytest.raises(InvalidTransition):
        await client.cancel(job.job_id)


async def test_a_stream_shows_the_way_to_the_end(served: Served, client: AsyncClient) -> None:
    await served.plane.open_session()
    job = await client.submit("simulation")
    seen: list[Job] = []
    async with asyncio.timeout(10), aclosing(client.stream(job.job_id, 10)) as stream:
        async for now in stream:
            seen.append(now)
            if len(seen) == 1:
                await served.plane.claim()
            elif now.status == "assigned":
                moved = ProgressReport(job_id=JobId(job.job_id), attempt=1, progress=Progress(fraction=0.5))
                await served.plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(moved,)))
            elif now.fraction == 0.5 and not now.done:
                await served.plane.claim(want=0, done=(done(job.job_id),))
    assert seen[-1].ok
    assert seen[-1].result == {"n": 1}
    assert [job.done for job in seen].count(True) == 1
    assert 0.5 in [job.fraction for job in seen]


async def test_all_waits_share_one_connection(served: Served, client: AsyncClient) -> None:
    jobs = [await client.submit("simulation") for _ in range(50)]
    waits = [asyncio.create_task(client.wait(job.job_id, 10)) for job in jobs]
    await eventually(lambda: served.plane.hub.readers == 1)
    for job in jobs:
        await client.cancel(job.job_id)
    assert {job.status for job in await asyncio.gather(*waits)} == {"cancelled"}


async def test_the_same_job_is_waited_for_by_many(client: AsyncClient) -> None:
    job = await client.submit("simulation")
    waits = [asyncio.create_task(client.wait(job.job_id, 10)) for _ in range(5)]
    await asyncio.sleep(0)
    await client.cancel(job.job_id)
    assert {ended.status for ended in await asyncio.gather(*waits)} == {"cancelled"}


async def test_jobs_come_as_they_end_and_all_of_them_in_order(client: AsyncClient) -> None:
    first, second = [(await client.submit("simulation")).job_id for _ in range(2)]
    async with aclosing(client.as_completed([first, second], 10)) as ended:
        await client.cancel(second)
        assert (await anext(ended)).job_id == second
        await client.cancel(first)
        assert (await anext(ended)).job_id == first
    assert [job.job_id for job in await client.wait_all([first, second], 10)] == [first, second]


async def test_more_jobs_than_a_connection_takes_are_followed_one_after_the_other(
    served: Served, client: AsyncClient, worker: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.api.client_socket.FOLLOWED_MAX", 10)
    job_ids = await client.submit_many([NewJob("simulation", n) for n in range(200)])
    ended = await client.wait_all(job_ids, 20)
    assert [job.result["saw"] for job in ended] == list(range(200))


async def test_a_socket_that_breaks_is_opened_again(served: Served, client: AsyncClient) -> None:
    job = await client.submit("simulation")
    waiting = asyncio.create_task(client.wait(job.job_id, 10))
    await eventually(lambda: served.plane.hub.readers == 1)
    for follower in list(served.plane.hub.followers._all):
        follower.close()
    await client.cancel(job.job_id)
    assert (await waiting).status == "cancelled"


# --- many -------------------------------------------------------------------------------------------------------------


async def test_results_of_many_come_in_the_order_of_their_payloads(client: AsyncClient, worker: object) -> None:
    results = [result["saw"] async for result in client.map("simulation", range(100), in_flight=16, wait_s=20)]
    assert results == list(range(100))


async def test_many_may_come_as_they_end(client: AsyncClient, worker: object) -> None:
    jobs = client.map_jobs("simulation", range(100), in_flight=16, ordered=False, wait_s=20)
    seen = [(job.result["saw"], job.payload) async for job in jobs]
    assert sorted(seen) == [(number, number) for number in range(100)]


async def test_no_more_than_so_many_are_under_way(served: Served, client: AsyncClient) -> None:
    taken: list[int] = []

    def payloads() -> Any:
        for number in range(50):
            taken.append(number)
            yield number

    async with aclosing(client.map_jobs("simulation", payloads(), in_flight=5, wait_s=10)) as jobs:
        waiting = asyncio.create_task(anext(jobs))
        await eventually(lambda: served.plane.hub.readers == 1)
        assert len(taken) == 5
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_nothing_is_mapped_to_nothing(client: AsyncClient) -> None:
    assert [result async for result in client.map("simulation", [])] == []


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_tokens_without_the_right_are_refused_with_typed_errors() -> None:
    async with serving(token="right") as guarded:
        _, agent = await guarded.plane.access.create(Wanted(name="a", role=Role.AGENT))
        _, viewer = await guarded.plane.access.create(Wanted(name="v", role=Role.VIEWER))
        job_id = await guarded.plane.submit()
        async with AsyncClient(guarded.url, token="wrong") as nobody:
            with pytest.raises(Unauthorized):
                await nobody.get(job_id)
            with pytest.raises(Forbidden, match="token"):
                await nobody.wait(job_id, 10)
        async with AsyncClient(guarded.url, token=agent) as other:
            with pytest.raises(Forbidden):
                await other.wait(job_id, 10)
        async with AsyncClient(guarded.url, token=viewer) as eye:
            with pytest.raises(Forbidden):
                await eye.submit("simulation")
            assert (await eye.get(job_id)).job_id == job_id
