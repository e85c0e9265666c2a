"""Submit, look at, cancel, repeat and explain jobs."""

import http
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from muster.api.plane import Plane, TheCaller, ThePlane
from muster.api.streams import event_stream
from muster.api.views import JobView, job_view
from muster.domain.job import TIMEOUT_S, Job, JobSpec, JobStatus
from muster.errors import Conflict, InvalidInput
from muster.ids import JobId
from muster.jobs.explain import Explanation
from muster.jobs.shapes import read_requirements


class SubmitJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to be done. `job_type` and `type` are other names of `service_required`, `id` of `job_id`.

    `requirements` has `models`, `hardware`, `labels`, `negative` (what a worker must not have), `customer_isolation`;
    all other keys are custom capabilities. `positive_requirements` and `negative_requirements` are understood as well.
    A `model` in the payload is required of the worker, unless `requirements.models` says otherwise.
    A job id of your own makes the submit safe to repeat. `timeout_s` bounds one attempt; `max_retries` counts the
    attempts after the first.
    """

    service_required: str | None = None
    job_type: str | None = None
    type: str | None = None
    payload: Any = None
    requirements: dict[str, Any] | Literal["all"] | None = None
    priority: int = 50
    max_retries: int = 3
    timeout_s: float | None = None
    id: str | None = None
    job_id: str | None = None
    customer_id: str | None = None
    workflow_id: str | None = None
    workflow_priority: int | None = None
    workflow_datetime: int | None = None
    step_number: int | None = None


class JobAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    job_id: str
    job: JobView
    timestamp: int


class SubmitAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    job_id: str
    created: bool
    job: JobView
    timestamp: int


class JobsAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    jobs: list[JobView]
    total: int
    next_cursor: str | None
    counts: dict[str, int]
    timestamp: int


class ExplainAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    explanation: Explanation
    timestamp: int


@post("/api/jobs", tags=["jobs"], summary="Submit a job")
async def submit(plane: ThePlane, caller: TheCaller, data: JSONBody[SubmitJob]) -> Response[SubmitAnswer]:
    spec = msgspec.structs.replace(_spec(data), submitted_by=caller.owner)
    (submitted,) = await plane.jobs.submit([spec])
    job = await plane.jobs.get(submitted.job_id)
    if not caller.sees_jobs_of(job.spec.submitted_by):
        raise Conflict(f"there is a job {submitted.job_id!r} already, and it is not yours", field="job_id")
    answer = SubmitAnswer(
        success=True,
        job_id=submitted.job_id,
        created=submitted.created,
        job=job_view(job, whole=True),
        timestamp=plane.clock.now_ms(),
    )
    return Response(answer, status_code=http.HTTPStatus.CREATED if submitted.created else http.HTTPStatus.OK)


@get("/api/jobs", tags=["jobs"], summary="Jobs by status, paged: waiting ones in their order, others newest first")
async def jobs(
    plane: ThePlane,
    status: FromQuery[JobStatus | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
) -> Response[JobsAnswer]:
    page = await plane.jobs.page(status, cursor, limit)
    answer = JobsAnswer(
        success=True,
        jobs=[job_view(job, whole=False) for job in page.jobs],
        total=page.total,
        next_cursor=page.next_cursor,
        counts={key.value: count for key, count in (await plane.jobs.counts()).items()},
        timestamp=plane.clock.now_ms(),
    )
    return Response(answer, headers={"X-Total-Count": str(page.total)})


@get("/api/jobs/{job_id:str}", tags=["jobs"], summary="One job with payload and result")
async def job(plane: ThePlane, job_id: FromPath[str]) -> JobAnswer:
    return _answer(plane, await plane.jobs.get(JobId(job_id)))


@post(
    "/api/jobs/{job_id:str}/cancel",
    tags=["jobs"],
    summary="Cancel a waiting or running job",
    status_code=http.HTTPStatus.OK,
)
async def cancel(plane: ThePlane, job_id: FromPath[str]) -> JobAnswer:
    return _answer(plane, await plane.jobs.cancel(JobId(job_id)))


@post(
    "/api/jobs/{job_id:str}/retry",
    tags=["jobs"],
    summary="Run a failed, timed-out or cancelled job again",
    status_code=http.HTTPStatus.OK,
)
async def retry(plane: ThePlane, job_id: FromPath[str]) -> JobAnswer:
    return _answer(plane, await plane.jobs.retry(JobId(job_id)))


@get("/api/jobs/{job_id:str}/explain", tags=["jobs"], summary="Why a job waits, and who could run it")
async def explain(plane: ThePlane, job_id: FromPath[str]) -> ExplainAnswer:
    explanation = await plane.jobs.explain(JobId(job_id))
    return ExplainAnswer(success=True, explanation=explanation, timestamp=plane.clock.now_ms())


@get("/api/jobs/{job_id:str}/progress", tags=["jobs"], summary="A job's states as server-sent events, until it ends")
async def progress(plane: ThePlane, job_id: FromPath[str]) -> Stream:
    await plane.jobs.get(JobId(job_id))  # an unknown job is a 404, not an empty stream
    return event_stream(plane.hub.job(JobId(job_id)))


def _answer(plane: Plane, found: Job) -> JobAnswer:
    view = job_view(found, whole=True)
    return JobAnswer(success=True, job_id=found.job_id, job=view, timestamp=plane.clock.now_ms())


def _spec(data: JSONBody[SubmitJob]) -> JobSpec:
    names = {name for name in (data.service_required, data.job_type, data.type) if name is not None}
    if len(names) != 1:
        problem = "is missing" if not names else f"is given twice with different values: {', '.join(sorted(names))}"
        raise InvalidInput(f"service_required {problem}", field="service_required")
    ids = {name for name in (data.id, data.job_id) if name is not None}
    if len(ids) > 1:
        raise InvalidInput("id and job_id differ; give one of them", field="job_id")
    service = names.pop()
    asked = read_requirements(data.requirements, service)
    return JobSpec(
        job_id=JobId(ids.pop() if ids else ""),
        service_required=service,
        payload=data.payload,
        requirements=asked.requirements,
        priority=data.priority,
        max_retries=data.max_retries,
        timeout_s=data.timeout_s or asked.timeout_s or TIMEOUT_S,
        customer_id=data.customer_id,
        workflow_id=data.workflow_id,
        workflow_priority=data.workflow_priority,
        workflow_datetime=data.workflow_datetime,
        step_number=data.step_number,
    )
