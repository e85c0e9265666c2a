"""Tasks of `/v2`: a prompt in, its answer as a stream. Each is a job of the one queue."""

import http
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody
from litestar.response import Stream
from msgspec import Meta, Struct

from muster.api.plane import AnyRequest, Plane, TheCaller, ThePlane
from muster.api.streams import event_stream, last_event_id
from muster.api.traced import SubmitSpans
from muster.control.jobs.tasks import Admitted
from muster.domain.job import Hardware, JobSpec, Requirements
from muster.errors import Conflict, InvalidInput, PoolNotReady
from muster.ids import JobId
from muster.ports import Submitted
from muster.wire.pools import LINK, engine_of

_SIMULATION = "simulation"
_SIMULATED_STEP_MS = 20
_SIMULATED_STEPS_MAX = 256
_BYTES_PER_GB = 1024**3

Text = Annotated[str, Meta(min_length=1)]


class Urgency(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


_PRIORITIES = {Urgency.INTERACTIVE: 75, Urgency.BATCH: 25}


class SubmitTask(Struct, frozen=True, kw_only=True):
    """A prompt or messages for a model. `model_ref` is another name of `model`; members not named here are ignored.

    `params` go to the engine as they are (temperature, stop, seed …). `deadline_ms` bounds one attempt. `pool` and
    `labels` pin where it runs. The engine `simulation` says the prompt again, without a model.
    """

    task_id: Text | None = None
    model: Text | None = None
    model_ref: Text | None = None
    engine: Text | None = None
    prompt: Text | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    params: dict[str, Any] = {}
    priority: Urgency | Annotated[int, Meta(ge=0, le=100)] = Urgency.INTERACTIVE
    deadline_ms: Annotated[int, Meta(ge=1000, le=604_800_000)] = 600_000
    pool: Text | None = None
    labels: dict[str, str] = {}
    min_vram_bytes: Annotated[int, Meta(ge=0, le=2**60)] | None = None
    customer_id: Text | None = None


class TaskStreamPaths(Struct, frozen=True, kw_only=True):
    sse: str


class TaskAnswer(Struct, frozen=True, kw_only=True):
    """`predicted_start_ms` is from now on; null as long as no such task has been seen to its end."""

    task_id: str
    queue_position: int
    predicted_start_ms: int | None
    streams: TaskStreamPaths


@post(
    "/v2/tasks",
    tags=["older APIs"],
    summary="Ask for an answer; 429 when too many wait already",
    status_code=http.HTTPStatus.ACCEPTED,
)
async def submit_task(
    plane: ThePlane, caller: TheCaller, request: AnyRequest, data: JSONBody[SubmitTask]
) -> TaskAnswer:
    _check_pool(plane, data.pool)
    admitted = await _admitted(plane, request, _spec(data, caller.owner))
    if not admitted.created and not caller.sees_jobs_of((await plane.jobs.get(admitted.task_id)).spec.submitted_by):
        raise Conflict(f"there is a task {admitted.task_id!r} already, and it is not yours", field="task_id")
    return TaskAnswer(
        task_id=admitted.task_id,
        queue_position=admitted.queue_position,
        predicted_start_ms=admitted.predicted_start_ms,
        streams=TaskStreamPaths(sse=f"/v2/tasks/{admitted.task_id}/events"),
    )


@get("/v2/tasks/{task_id:str}/events", tags=["older APIs"], summary="started, token …, and one end or error")
async def task_events(plane: ThePlane, request: AnyRequest, task_id: FromPath[str]) -> Stream:
    await plane.jobs.get(JobId(task_id))  # an unknown task is a 404, not an empty stream
    return event_stream(plane.task_streams.events(JobId(task_id), last_event_id(request)))


@post(
    "/v2/tasks/{task_id:str}/cancel",
    tags=["older APIs"],
    summary="Stop a task; no token follows the answer to this",
    status_code=http.HTTPStatus.NO_CONTENT,
)
async def cancel_task(plane: ThePlane, task_id: FromPath[str]) -> Response[None]:
    await plane.task_streams.cancel(JobId(task_id))
    return Response(None, status_code=http.HTTPStatus.NO_CONTENT)


async def _admitted(plane: Plane, request: AnyRequest, spec: JobSpec) -> Admitted:
    admitted: list[Admitted] = []

    async def admit(specs: Sequence[JobSpec]) -> list[Submitted]:
        admitted.extend([await plane.tasks.admit(spec) for spec in specs])
        return [Submitted(job_id=one.task_id, created=one.created) for one in admitted]

    await SubmitSpans.of(plane.tracer, request.headers).around(admit, [spec])
    return admitted[0]


def _check_pool(plane: Plane, name: str | None) -> None:
    """Refuse a pin that cannot be: a task would wait for ever, and going elsewhere is not what was asked for."""
    if name is None or any(node.facts.pool == name for node in plane.fleet.nodes()):
        return
    node_id, _, pool_id = name.rpartition("/")
    pool = plane.pools.find(pool_id, node_id or None)
    if pool.node.link != LINK:
        raise InvalidInput(
            f"{pool.key} is a service of an agent, whose workers choose by themselves: "
            "pin a group of nodes (their `pool`), or labels",
            field="pool",
        )
    if not pool.ready or pool.draining or not plane.pools.is_live(pool):
        raise PoolNotReady(f"the pool {pool.key} takes no work now; GET /v2/pools/{pool.key}/health says why")


def _spec(data: SubmitTask, submitted_by: str | None) -> JobSpec:
    model = _one(data.model, data.model_ref)
    engine = engine_of(data.engine)
    if (data.prompt is None) is (data.messages is None):
        raise InvalidInput("a task needs either prompt or messages", field="prompt")
    asked = {"messages": data.messages} if data.messages is not None else {"prompt": data.prompt}
    models: tuple[str, ...] = ()
    if engine == _SIMULATION:
        payload = _simulated(data)
    else:
        named = {"model": model, "max_tokens": data.max_tokens}
        payload = data.params | {key: value for key, value in named.items() if value is not None} | asked
        payload |= {"stream": True}
        models = models if model is None else (model,)
    gigabytes = None if data.min_vram_bytes is None else data.min_vram_bytes / _BYTES_PER_GB
    return JobSpec(
        job_id=JobId(data.task_id or ""),
        service_required=engine,
        payload=payload,
        requirements=Requirements(
            models=models,
            hardware=Hardware(gpu_memory_gb=gigabytes),
            labels=data.labels,
            custom={} if data.pool is None else {"pool": data.pool},
        ),
        priority=_PRIORITIES[data.priority] if isinstance(data.priority, Urgency) else data.priority,
        timeout_s=data.deadline_ms / 1000,
        customer_id=data.customer_id,
        submitted_by=submitted_by,
    )


def _one(model: str | None, model_ref: str | None) -> str | None:
    if None not in (model, model_ref) and model != model_ref:
        raise InvalidInput("model and model_ref differ; give one of them", field="model")
    return model if model is not None else model_ref


def _simulated(data: SubmitTask) -> dict[str, Any]:
    text = data.prompt if data.prompt is not None else str((data.messages or [{}])[-1].get("content", ""))
    steps = max(1, min(len(text.split()), data.max_tokens or _SIMULATED_STEPS_MAX, _SIMULATED_STEPS_MAX))
    return {"text": text, "steps": steps, "duration_ms": steps * _SIMULATED_STEP_MS} | data.params


HANDLERS = [submit_task, task_events, cancel_task]
