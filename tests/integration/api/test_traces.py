"""Jobs in their submitters' traces."""

from pathlib import Path

import aiohttp

from tests.integration.api.conftest import Served, serving
from tests.traces import RememberingTracer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JOB = {"service_required": "simulation", "payload": {}}


async def stored(served: Served, job_id: str) -> str | None:
    (job,) = await served.plane.store.jobs.get([job_id])  # type: ignore[list-item]  # an id as the API told it
    assert job is not None
    return job.spec.traceparent


async def test_submitting_is_a_span_of_the_callers_trace_which_the_job_continues() -> None:
    tracer = RememberingTracer()
    async with serving(tracer=tracer) as served:
        headers = {"traceparent": PARENT, "X-Correlation-Id": "mine-1"}
        async with served.client.post("/api/jobs", json=JOB, headers=headers) as answer:
            job_id = (await answer.json())["job_id"]
        kept = await stored(served, job_id)
        await served.plane.open_session()
        served.plane.clock.advance(2.0)
        (claimed,) = (await served.plane.claim()).jobs

    submit, wait = tracer.spans
    assert (submit.name, submit.parent) == ("job.submit", PARENT)
    assert submit.about["muster.job_id"] == job_id
    assert submit.about["muster.correlation_id"] == "mine-1"
    assert kept == claimed.spec.traceparent == submit.traceparent
    assert (wait.name, wait.parent) == ("job.wait", submit.traceparent)
    assert wait.about["begun_ms"] == claimed.spec.created_at
    assert submit.ended
    assert wait.ended


async def test_each_job_of_a_batch_has_its_own_span_and_traces_begin_here_where_there_is_none() -> None:
    tracer = RememberingTracer()
    async with serving(tracer=tracer) as served:
        headers = {"traceparent": "not one"}
        async with served.client.post("/api/jobs/batch", json={"jobs": [JOB, JOB]}, headers=headers) as answer:
            ids = [job["job_id"] for job in (await answer.json())["jobs"]]

    assert [(span.name, span.parent, span.about["muster.job_id"]) for span in tracer.spans] == [
        ("job.submit", None, ids[0]),
        ("job.submit", None, ids[1]),
    ]


async def test_what_is_refused_ends_its_span_too() -> None:
    tracer = RememberingTracer()
    async with serving(tracer=tracer) as served:
        answer = await served.client.post("/api/jobs", json=JOB | {"depends_on": ["nobody"]})
        assert answer.status == 400
        await answer.read()

    (span,) = tracer.spans
    assert span.ended
    assert span.error == "invalid_input"


async def test_without_traces_of_our_own_a_job_carries_its_callers(served: Served) -> None:
    for traceparent, expected in ((PARENT, PARENT), ("not one", None)):
        async with served.client.post("/api/jobs", json=JOB, headers={"traceparent": traceparent}) as answer:
            assert await stored(served, (await answer.json())["job_id"]) == expected


async def test_a_task_of_v2_is_a_span_of_its_callers_trace() -> None:
    tracer = RememberingTracer()
    async with serving(tracer=tracer) as served:
        task = {"task_id": "t1", "prompt": "hello", "engine": "simulation", "max_tokens": 3}
        async with served.client.post("/v2/tasks", json=task, headers={"traceparent": PARENT}) as answer:
            assert answer.status == 202, await answer.text()
        kept = await stored(served, "t1")

    (submit,) = tracer.spans
    assert (submit.name, submit.parent, submit.about["muster.job_id"]) == ("job.submit", PARENT, "t1")
    assert submit.ended
    assert kept == submit.traceparent


async def test_the_jobs_of_a_batch_are_to_be_part_of_its_callers_trace(tmp_path: Path) -> None:
    async with serving(files=tmp_path) as served:
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", b"{}\n", filename="batch.jsonl")
        async with served.client.post("/v1/files", data=form) as answer:
            file_id = (await answer.json())["id"]
        wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        for traceparent in (PARENT, "not one"):
            headers = {"traceparent": traceparent}
            async with served.client.post("/v1/batches", json=wanted, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
        kept = await served.plane.store.batches.batches()

    assert {batch.traceparent for batch in kept} == {PARENT, None}
