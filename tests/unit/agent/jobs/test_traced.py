import asyncio

import pytest

from muster.agent.jobs.traced import TRACEPARENT, traced
from muster.domain.job import ClaimedJob, JobError, JobSpec
from muster.ids import JobId, WorkerId
from muster.wire import Outcome, OutcomeKind
from tests.traces import RememberingTracer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SPEC = JobSpec(job_id=JobId("j1"), service_required="simulation", traceparent=PARENT)
JOB = ClaimedJob(spec=SPEC, attempt=2, deadline_ms=0)
WORKER = WorkerId("n-worker-0")


async def attempt(seen: list[str | None], error: JobError | None = None) -> Outcome:
    seen.append(TRACEPARENT.get())
    kind = OutcomeKind.FAILED if error else OutcomeKind.COMPLETED
    return Outcome(job_id=JobId("j1"), attempt=2, kind=kind, error=error)


async def test_an_attempt_is_a_span_and_services_are_told_of_it() -> None:
    tracer, seen = RememberingTracer(), list[str | None]()
    task = asyncio.create_task(traced(attempt(seen), JOB, tracer, WORKER))
    await task

    (span,) = tracer.spans
    assert (span.name, span.parent, span.error, span.ended) == ("job.attempt", PARENT, None, True)
    assert (span.about["muster.job_id"], span.about["muster.attempt"]) == ("j1", 2)
    assert seen == [span.traceparent]
    assert TRACEPARENT.get() is None, "it is of that attempt only"


async def test_a_failure_is_told_by_its_code() -> None:
    tracer = RememberingTracer()
    await asyncio.create_task(traced(attempt([], JobError(code="boom", message="it broke")), JOB, tracer, WORKER))

    assert [span.error for span in tracer.spans] == ["boom"]


async def test_an_attempt_that_is_cancelled_ends_its_span() -> None:
    tracer, begun = RememberingTracer(), asyncio.Event()

    async def endless() -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(traced(endless(), JOB, tracer, WORKER))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [(span.error, span.ended) for span in tracer.spans] == [("cancelled", True)]


async def test_without_traces_of_our_own_services_are_told_the_jobs() -> None:
    seen: list[str | None] = []
    await asyncio.create_task(traced(attempt(seen), JOB, None, WORKER))

    assert seen == [PARENT]
