"""Queues, customers, and the jobs that ended badly."""

import http
from typing import Annotated

from litestar import Response, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Struct

from muster.api.lists import TextSearch
from muster.api.plane import ThePlane
from muster.api.views import JobView, job_view
from muster.control.jobs.queues import LOOKED_AT_MAX, FailureGroup, Filter, QueueState, Search
from muster.domain.job import JobStatus
from muster.domain.queue import CustomerFigures, CustomerTerms


class QueueView(Struct, frozen=True, kw_only=True):
    """All jobs of one service. `waiting` are in line, `unworkable` those of them that nobody who is there can run.

    The rates are jobs a minute over the last five minutes.
    """

    name: str
    paused: bool
    waiting: int
    unworkable: int
    running: int
    oldest_age_s: float | None
    submitted_per_min: float
    completed_per_min: float
    failed_per_min: float


class QueuesAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    all_paused: bool
    queues: list[QueueView]
    timestamp: int


class QueueAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    queue: QueueView
    timestamp: int


class CustomerView(Struct, frozen=True, kw_only=True):
    """`weight` is the share among customers that wait; null is no limit."""

    customer_id: str
    weight: int
    running_max: int | None
    waiting_max: int | None
    waiting: int
    running: int


class CustomersAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    customers: list[CustomerView]
    timestamp: int


class CustomerAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    customer: CustomerView
    timestamp: int


class FailuresAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    groups: tuple[FailureGroup, ...]
    looked_at: int
    next_cursor: str | None
    timestamp: int


class Replay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs to be tried again: those that ended as `status` and fit all that is given.

    One call looks at `limit` of them, the newest first; call again with `next_cursor` as `cursor` until it is null.
    """

    status: JobStatus = JobStatus.FAILED
    service: str | None = None
    code: str | None = None
    customer_id: str | None = None
    workflow_id: str | None = None
    since: int | None = None
    cursor: str | None = None
    limit: int = 200


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    replayed: int
    job_ids: tuple[str, ...]
    looked_at: int
    next_cursor: str | None
    timestamp: int


class SearchAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    jobs: list[JobView]
    looked_at: int
    next_cursor: str | None
    timestamp: int


@get("/api/queues", tags=["jobs"], summary="Queues: what waits, what runs, how fast, and whether it is paused")
async def queues(plane: ThePlane) -> QueuesAnswer:
    return QueuesAnswer(
        success=True,
        all_paused=await plane.queues.all_paused(),
        queues=[_queue(state) for state in await plane.queues.queues()],
        timestamp=plane.clock.now_ms(),
    )


@post(
    "/api/queues/{name:str}/pause",
    tags=["jobs"],
    summary="Claim nothing more of a queue; `all` for every one",
    status_code=http.HTTPStatus.OK,
)
async def pause(plane: ThePlane, name: FromPath[str]) -> QueueAnswer:
    state = await plane.queues.set_paused(name, paused=True)
    return QueueAnswer(success=True, queue=_queue(state), timestamp=plane.clock.now_ms())


@post(
    "/api/queues/{name:str}/resume",
    tags=["jobs"],
    summary="Let a paused queue go on; `all` for every one",
    status_code=http.HTTPStatus.OK,
)
async def resume(plane: ThePlane, name: FromPath[str]) -> QueueAnswer:
    state = await plane.queues.set_paused(name, paused=False)
    return QueueAnswer(success=True, queue=_queue(state), timestamp=plane.clock.now_ms())


@get("/api/customers", tags=["jobs"], summary="Customers for whom something is set")
async def customers(plane: ThePlane) -> CustomersAnswer:
    found = [_customer(figures) for figures in await plane.queues.customers()]
    return CustomersAnswer(success=True, customers=found, timestamp=plane.clock.now_ms())


@get("/api/customers/{customer_id:str}", tags=["jobs"], summary="One customer: its share, its limits, its jobs")
async def customer(plane: ThePlane, customer_id: FromPath[str]) -> CustomerAnswer:
    figures = await plane.queues.customer(customer_id)
    return CustomerAnswer(success=True, customer=_customer(figures), timestamp=plane.clock.now_ms())


@put("/api/customers/{customer_id:str}", tags=["jobs"], summary="Set a customer's share and limits")
async def set_customer(plane: ThePlane, customer_id: FromPath[str], data: JSONBody[CustomerTerms]) -> CustomerAnswer:
    figures = await plane.queues.set_customer(customer_id, data)
    return CustomerAnswer(success=True, customer=_customer(figures), timestamp=plane.clock.now_ms())


@delete("/api/customers/{customer_id:str}", tags=["jobs"], summary="Forget a customer's share and limits")
async def forget_customer(plane: ThePlane, customer_id: FromPath[str]) -> Response[None]:
    await plane.queues.forget_customer(customer_id)
    return Response(None, status_code=http.HTTPStatus.NO_CONTENT)


@get(
    "/api/jobs/search",
    tags=["jobs"],
    summary=f"Jobs by what is known of them: a call looks at up to {LOOKED_AT_MAX}, its cursor leads on",
)
async def search(
    plane: ThePlane,
    status: FromQuery[JobStatus | None] = None,
    service: FromQuery[str | None] = None,
    customer_id: FromQuery[str | None] = None,
    workflow_id: FromQuery[str | None] = None,
    text: TextSearch = None,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
) -> SearchAnswer:
    wanted = Search(status=status, service=service, customer_id=customer_id, workflow_id=workflow_id, text=text)
    found = await plane.queues.search(wanted, cursor, limit)
    return SearchAnswer(
        success=True,
        jobs=[job_view(job, whole=False) for job in found.jobs],
        looked_at=found.looked_at,
        next_cursor=found.next_cursor,
        timestamp=plane.clock.now_ms(),
    )


@get("/api/jobs/failures", tags=["jobs"], summary="Why jobs ended badly: the newest by service and code of error")
async def failures(
    plane: ThePlane,
    status: FromQuery[JobStatus] = JobStatus.FAILED,
    service: FromQuery[str | None] = None,
    code: FromQuery[str | None] = None,
    customer_id: FromQuery[str | None] = None,
    since: Annotated[int | None, QueryParameter(ge=0)] = None,
    cursor: FromQuery[str | None] = None,
) -> FailuresAnswer:
    wanted = Filter(status=status, service=service, code=code, customer_id=customer_id, since=since)
    found = await plane.queues.failures(wanted, cursor)
    return FailuresAnswer(
        success=True,
        groups=found.groups,
        looked_at=found.looked_at,
        next_cursor=found.next_cursor,
        timestamp=plane.clock.now_ms(),
    )


@post(
    "/api/jobs/replay",
    tags=["jobs"],
    summary=f"Try jobs again that ended badly, up to {LOOKED_AT_MAX} a call",
    status_code=http.HTTPStatus.OK,
)
async def replay(plane: ThePlane, data: JSONBody[Replay]) -> ReplayAnswer:
    wanted = Filter(
        status=data.status,
        service=data.service,
        code=data.code,
        customer_id=data.customer_id,
        workflow_id=data.workflow_id,
        since=data.since,
    )
    done = await plane.queues.replay(wanted, data.cursor, data.limit)
    return ReplayAnswer(
        success=True,
        replayed=len(done.job_ids),
        job_ids=done.job_ids,
        looked_at=done.looked_at,
        next_cursor=done.next_cursor,
        timestamp=plane.clock.now_ms(),
    )


HANDLERS = [queues, pause, resume, customers, customer, set_customer, forget_customer, search, failures, replay]


def _queue(state: QueueState) -> QueueView:
    figures = state.figures
    return QueueView(
        name=figures.service,
        paused=figures.paused,
        waiting=figures.waiting,
        unworkable=figures.unworkable,
        running=figures.running,
        oldest_age_s=state.oldest_age_s,
        submitted_per_min=round(figures.submitted_per_min, 3),
        completed_per_min=round(figures.completed_per_min, 3),
        failed_per_min=round(figures.failed_per_min, 3),
    )


def _customer(figures: CustomerFigures) -> CustomerView:
    terms = figures.terms or CustomerTerms()
    return CustomerView(
        customer_id=figures.name,
        weight=terms.weight,
        running_max=terms.running_max,
        waiting_max=terms.waiting_max,
        waiting=figures.waiting,
        running=figures.running,
    )
