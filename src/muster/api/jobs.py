"""Submit, look at, cancel, repeat and explain jobs."""

import http
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from muster.access.book import Caller
from muster.access.roles import SEES_OWN_JOBS_ONLY
from muster.api.plane import AnyRequest, Plane, TheCaller, ThePlane
from muster.api.streams import event_stream, last_event_id
from muster.api.traced import SubmitSpans
from muster.api.views import JobView, job_view
from muster.domain.job import TIMEOUT_S, Job, JobSpec, JobStatus, Retry
from muster.errors import Conflict, InvalidInput
from muster.ids import JobId
from muster.jobs.explain import Explanation
from muster.jobs.shapes import read_requirements
from muster.jobs.submission import RUN_AHEAD_MAX_MS
from muster.logs.own import spoken_about

_KEY_CHARS_MAX = 256
_DIGITS = 32
_NOTED_MAX = 20


class SubmitJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to be done. `job_type` and `type` are other names of `service_required`, `id` of `job_id`.

    `requirements` has `models`, `hardware`, `labels`, `negative` (what a worker must not have), `customer_isolation`;
    all other keys are custom capabilities. `positive_requirements` and `negative_requirements` are understood as well.
    A `model` in the payload is required of the worker, unless `requirements.models` says otherwise.
    A job id of your own makes the submit safe to repeat, and so does an `idempotency_key` (or the header
    `Idempotency-Key`): with the same request it is the same job, with another one a conflict.
    `timeout_s` bounds one attempt, `deadline_s` the whole job, waiting or running; `max_retries` counts the attempts
    after the first, `retry` says when they come and after which codes of errors there is none.
    Before `run_at` (ms), or for `delay_s`, it is not in line. It starts when all jobs it `depends_on` are completed,
    and fails when one of them ends otherwise, or runs all the same with `on_failure` "run".
    `webhook_url` is told of its end, as webhooks are.
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
    run_at: int | None = None
    delay_s: float | None = None
    deadline_s: float | None = None
    retry: Retry | None = None
    depends_on: tuple[str, ...] = ()
    on_failure: Literal["fail", "run"] = "fail"
    idempotency_key: str | None = None
    webhook_url: str | None = None


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


class SubmitJobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    jobs: Annotated[list[SubmitJob], msgspec.Meta(min_length=1, max_length=1000)]


class SubmittedJob(Struct, frozen=True, kw_only=True):
    job_id: str
    created: bool
    status: JobStatus


class SubmittedAnswer(Struct, frozen=True, kw_only=True):
    """The jobs in the order in which they were sent."""

    success: bool
    jobs: list[SubmittedJob]
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
async def submit(
    plane: ThePlane,
    caller: TheCaller,
    data: JSONBody[SubmitJob],
    request: AnyRequest,
    idempotency_key: Annotated[str | None, HeaderParameter(name="Idempotency-Key")] = None,
) -> Response[SubmitAnswer]:
    (answer,) = await accept(
        plane, caller, [_with_header(data, idempotency_key)], SubmitSpans.of(plane.tracer, request.headers)
    )
    return Response(answer, status_code=http.HTTPStatus.CREATED if answer.created else http.HTTPStatus.OK)


@post(
    "/api/jobs/batch",
    tags=["jobs"],
    summary="Submit many jobs at once: all of them, or with an error none",
    status_code=http.HTTPStatus.OK,
)
async def submit_many(
    plane: ThePlane, caller: TheCaller, data: JSONBody[SubmitJobs], request: AnyRequest
) -> SubmittedAnswer:
    answers = await accept(plane, caller, data.jobs, SubmitSpans.of(plane.tracer, request.headers))
    return SubmittedAnswer(
        success=True,
        jobs=[
            SubmittedJob(job_id=answer.job_id, created=answer.created, status=answer.job.status) for answer in answers
        ],
        timestamp=plane.clock.now_ms(),
    )


async def accept(
    plane: Plane, caller: Caller, wanted: Sequence[SubmitJob], spans: SubmitSpans | None = None
) -> list[SubmitAnswer]:
    """Store jobs in their caller's name, all or none; one that is known already must be one that he may see."""
    now_ms = plane.clock.now_ms()
    specs = [_spec_of(number, data, caller, now_ms) for number, data in enumerate(wanted)]
    if caller.role in SEES_OWN_JOBS_ONLY:
        await _visible(plane, caller, [spec.job_id for spec in specs if spec.job_id])
    submitted = await (plane.jobs.submit(specs) if spans is None else spans.around(plane.jobs.submit, specs))
    plane.note("jobs_submitted", {"job_ids": [one.job_id for one in submitted[:_NOTED_MAX]], **spoken_about()})
    found = await _visible(plane, caller, [one.job_id for one in submitted])
    return [
        SubmitAnswer(
            success=True,
            job_id=one.job_id,
            created=one.created,
            job=job_view(found[one.job_id], whole=True),
            timestamp=plane.clock.now_ms(),
        )
        for one in submitted
    ]


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
async def progress(plane: ThePlane, request: AnyRequest, job_id: FromPath[str]) -> Stream:
    """Tell how the job stands and each change, its end once and as the last.

    The id of an event names the state it tells. Whoever comes back with the id (`Last-Event-ID`, or `after` in the
    query) of the state in which the job still is does not hear it again; where it is the end, the answer is 204, at
    which a browser stops asking.
    """
    found = job_view(await plane.jobs.get(JobId(job_id)), whole=False)  # an unknown job is a 404, not an empty stream
    seen = last_event_id(request)
    stream = event_stream(plane.hub.job(JobId(job_id), seen))
    if found.final and seen == found.version:
        stream.status_code = http.HTTPStatus.NO_CONTENT
    return stream


def _answer(plane: Plane, found: Job) -> JobAnswer:
    view = job_view(found, whole=True)
    return JobAnswer(success=True, job_id=found.job_id, job=view, timestamp=plane.clock.now_ms())


async def _visible(plane: Plane, caller: Caller, job_ids: Sequence[JobId]) -> dict[JobId, Job]:
    found = {job.job_id: job for job in await plane.jobs.get_many(job_ids)}
    for job in found.values():
        if not caller.sees_jobs_of(job.spec.submitted_by):
            raise Conflict(f"there is a job {job.job_id!r} already, and it is not yours", field="job_id")
    return found


def _spec_of(number: int, data: SubmitJob, caller: Caller, now_ms: int) -> JobSpec:
    try:
        spec = msgspec.structs.replace(
            spec_of(data, now_ms), submitted_by=caller.owner, correlation_id=spoken_about().get("correlation_id")
        )
        return _with_key(spec, data)
    except InvalidInput as error:
        if number == 0:
            raise
        raise InvalidInput(f"job {number}: {error.message}", field=error.field) from None


def _with_header(data: SubmitJob, key: str | None) -> SubmitJob:
    if key is None or key == data.idempotency_key:
        return data
    if data.idempotency_key is not None:
        raise InvalidInput("idempotency_key and the header Idempotency-Key differ", field="idempotency_key")
    return msgspec.structs.replace(data, idempotency_key=key)


def _with_key(spec: JobSpec, data: SubmitJob) -> JobSpec:
    """Give the job an id that its key always leads to; two callers' equal keys have nothing to do with each other."""
    key = data.idempotency_key
    if key is None:
        return spec
    if not 1 <= len(key) <= _KEY_CHARS_MAX:
        raise InvalidInput(f"idempotency_key must have 1 to {_KEY_CHARS_MAX} characters", field="idempotency_key")
    said = msgspec.json.encode(msgspec.structs.replace(data, idempotency_key=None), order="sorted")
    job_id = spec.job_id or f"job-{sha256(f'{spec.submitted_by}|{key}'.encode()).hexdigest()[:_DIGITS]}"
    return msgspec.structs.replace(spec, job_id=JobId(job_id), idempotency=sha256(said).hexdigest()[:_DIGITS])


def spec_of(data: SubmitJob, now_ms: int) -> JobSpec:
    names = {name for name in (data.service_required, data.job_type, data.type) if name is not None}
    if len(names) != 1:
        problem = "is missing" if not names else f"is given twice with different values: {', '.join(sorted(names))}"
        raise InvalidInput(f"service_required {problem}", field="service_required")
    ids = {name for name in (data.id, data.job_id) if name is not None}
    if len(ids) > 1:
        raise InvalidInput("id and job_id differ; give one of them", field="job_id")
    if data.run_at is not None and data.delay_s is not None:
        raise InvalidInput("give either run_at or delay_s", field="delay_s")
    if data.delay_s is not None and not 0 <= data.delay_s <= RUN_AHEAD_MAX_MS / 1000:
        raise InvalidInput(f"delay_s must be 0 to {RUN_AHEAD_MAX_MS // 1000}, got {data.delay_s:g}", field="delay_s")
    service = names.pop()
    asked = read_requirements(data.requirements, service)
    return JobSpec(
        job_id=JobId(ids.pop() if ids else ""),
        service_required=service,
        payload=data.payload,
        requirements=asked.requirements,
        priority=data.priority,
        max_retries=data.max_retries,
        timeout_s=next(s for s in (data.timeout_s, asked.timeout_s, TIMEOUT_S) if s is not None),
        customer_id=data.customer_id,
        workflow_id=data.workflow_id,
        workflow_priority=data.workflow_priority,
        workflow_datetime=data.workflow_datetime,
        step_number=data.step_number,
        run_at=data.run_at if data.delay_s is None else now_ms + round(data.delay_s * 1000),
        deadline_s=data.deadline_s,
        retry=data.retry,
        depends_on=tuple(JobId(name) for name in data.depends_on),
        on_failure=data.on_failure,
        webhook_url=data.webhook_url,
    )
