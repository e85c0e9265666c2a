"""Recurring jobs."""

import http

from litestar import Response, delete, get, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Struct
from msgspec.structs import replace

from muster.api.jobs import SubmitJob, spec_of
from muster.api.plane import Plane, TheCaller, ThePlane
from muster.domain.schedule import Missed, Schedule
from muster.errors import InvalidInput
from muster.jobs.schedules import next_times

_SHOWN = 5


class SetSchedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`job` is submitted at each time of `cron` (minute hour day month weekday, in `time_zone`), or each `every_s`.

    `missed` says what becomes of times at which no control plane ran: the `last` is made up for, `all` of them up to
    a hundred, or none (`skip`).
    """

    job: SubmitJob
    cron: str | None = None
    time_zone: str = "UTC"
    every_s: float | None = None
    missed: Missed = Missed.LAST
    paused: bool = False


class ScheduleView(Struct, frozen=True, kw_only=True):
    """Times in ms since the epoch; `next_runs` are the next few, none while it is paused."""

    schedule_id: str
    service_required: str
    cron: str | None
    time_zone: str
    every_s: float | None
    missed: Missed
    paused: bool
    next_runs: list[int]
    last_at: int | None
    last_job_id: str | None


class SchedulesAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    schedules: list[ScheduleView]
    timestamp: int


class ScheduleAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    schedule: ScheduleView
    timestamp: int


@get("/api/schedules", tags=["jobs"], summary="Recurring jobs and when each comes next")
async def schedules(plane: ThePlane) -> SchedulesAnswer:
    found = [_view(schedule) for schedule in await plane.schedules.all()]
    return SchedulesAnswer(success=True, schedules=found, timestamp=plane.clock.now_ms())


@get("/api/schedules/{schedule_id:str}", tags=["jobs"], summary="One recurring job")
async def schedule(plane: ThePlane, schedule_id: FromPath[str]) -> ScheduleAnswer:
    return _answer(plane, await plane.schedules.get(schedule_id))


@put("/api/schedules/{schedule_id:str}", tags=["jobs"], summary="Make or change a recurring job")
async def set_schedule(
    plane: ThePlane, caller: TheCaller, schedule_id: FromPath[str], data: JSONBody[SetSchedule]
) -> ScheduleAnswer:
    job = data.job
    for field in ("id", "job_id", "run_at", "idempotency_key"):
        if getattr(job, field) is not None:
            raise InvalidInput(f"job.{field} cannot be: each time makes a job of its own", field=f"job.{field}")
    if job.delay_s is not None:
        raise InvalidInput("job.delay_s cannot be: the schedule says when", field="job.delay_s")
    wanted = Schedule(
        schedule_id=schedule_id,
        job=replace(spec_of(job, plane.clock.now_ms()), submitted_by=caller.owner),
        cron=data.cron,
        time_zone=data.time_zone,
        every_s=data.every_s,
        missed=data.missed,
        paused=data.paused,
    )
    return _answer(plane, await plane.schedules.put(wanted))


@delete("/api/schedules/{schedule_id:str}", tags=["jobs"], summary="Forget a recurring job; its jobs stay")
async def forget_schedule(plane: ThePlane, schedule_id: FromPath[str]) -> Response[None]:
    await plane.schedules.delete(schedule_id)
    return Response(None, status_code=http.HTTPStatus.NO_CONTENT)


@post(
    "/api/schedules/{schedule_id:str}/pause",
    tags=["jobs"],
    summary="Submit no more jobs of a schedule",
    status_code=http.HTTPStatus.OK,
)
async def pause_schedule(plane: ThePlane, schedule_id: FromPath[str]) -> ScheduleAnswer:
    return _answer(plane, await plane.schedules.set_paused(schedule_id, paused=True))


@post(
    "/api/schedules/{schedule_id:str}/resume",
    tags=["jobs"],
    summary="Let a paused schedule go on from now",
    status_code=http.HTTPStatus.OK,
)
async def resume_schedule(plane: ThePlane, schedule_id: FromPath[str]) -> ScheduleAnswer:
    return _answer(plane, await plane.schedules.set_paused(schedule_id, paused=False))


HANDLERS = [schedules, schedule, set_schedule, forget_schedule, pause_schedule, resume_schedule]


def _answer(plane: Plane, found: Schedule) -> ScheduleAnswer:
    return ScheduleAnswer(success=True, schedule=_view(found), timestamp=plane.clock.now_ms())


def _view(found: Schedule) -> ScheduleView:
    runs = [] if found.next_at is None else [found.next_at, *next_times(found, found.next_at, _SHOWN - 1)]
    return ScheduleView(
        schedule_id=found.schedule_id,
        service_required=found.job.service_required,
        cron=found.cron,
        time_zone=found.time_zone,
        every_s=found.every_s,
        missed=found.missed,
        paused=found.paused,
        next_runs=runs,
        last_at=found.last_at,
        last_job_id=found.last_job_id,
    )
