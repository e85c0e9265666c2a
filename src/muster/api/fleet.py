"""Nodes and workers as `/api/v1` shows them."""

import http
from collections.abc import Callable
from typing import Annotated, Any

from litestar import Response, delete, get
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from muster.api.lists import LabelFilter, Limit, Order, Page, TextSearch, labelled, ordered, paged, said
from muster.api.plane import Plane, ThePlane
from muster.api.views import NodeView, WorkerView, node_view, worker_views
from muster.control.fleet.history import Curve
from muster.control.fleet.startups import Startup, last_startup
from muster.domain.job import JobStatus
from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus
from muster.ids import NodeId, WorkerId
from muster.registry.workers import find

Idle = Annotated[
    bool | None, QueryParameter(description="true: only those that run nothing and whose GPU is known to do nothing.")
]
HeldModel = Annotated[str | None, QueryParameter(max_length=256, description="Only those that have this model.")]
FreeVram = Annotated[
    int | None,
    QueryParameter(ge=0, le=2**40, description="Only those with more GPU memory free; of what is reported, in MB."),
]

_NODE_ORDERS: dict[str, Callable[[Node], Any]] = {
    "node_id": lambda node: node.node_id,
    "type": lambda node: node.facts.node_type,
    "health": lambda node: node.health.value,
    "pool": lambda node: node.facts.pool,
    "region": lambda node: node.facts.region,
    "link": lambda node: node.link,
    "last_seen": lambda node: node.last_seen_ms,
    "registered_at": lambda node: node.registered_at_ms,
    "gpu_count": lambda node: len(node.gpus),
}
_WORKER_ORDERS: dict[str, Callable[[WorkerView], Any]] = {
    "worker_id": lambda worker: worker.worker_id,
    "node_id": lambda worker: worker.node_id,
    "status": lambda worker: worker.status.value,
    "jobs_completed": lambda worker: worker.jobs_completed,
    "jobs_failed": lambda worker: worker.jobs_failed,
}


class FleetSummary(Struct, frozen=True, kw_only=True):
    total_nodes: int
    healthy_nodes: int
    unhealthy_nodes: int
    gpu_nodes: int
    total_gpus: int


class FleetReport(Struct, frozen=True, kw_only=True):
    nodes: list[NodeView]
    summary: FleetSummary


class GpuHistory(Struct, frozen=True, kw_only=True):
    index: int
    name: str
    memory_total_mb: int | None
    utilization_percent: Curve
    memory_used_mb: Curve
    temperature_c: Curve
    power_w: Curve


class NodeHistory(Struct, frozen=True, kw_only=True):
    """The last 15 minutes, a point every ten seconds: each figure at each time of `at` (ms); null: unknown."""

    node_id: str
    memory_total_mb: int | None
    at: list[int]
    cpu_percent: Curve
    memory_used_mb: Curve
    gpus: list[GpuHistory]


class Stats(Struct, frozen=True, kw_only=True):
    total_nodes: int
    healthy_nodes: int
    unhealthy_nodes: int
    gpu_nodes: int
    total_gpus: int
    connected: int
    suspects_itself: bool  # most nodes are silent at once, which is likely our own fault: nobody is judged
    jobs: dict[str, int]


@get("/api/v1/fleet", tags=["fleet"], summary="All nodes and their sum")
async def fleet(plane: ThePlane) -> FleetReport:
    return FleetReport(nodes=_views(plane, plane.fleet.nodes()), summary=_summary(plane.fleet.nodes()))


@get("/api/v1/nodes", tags=["fleet"], summary="Nodes, filtered, in order and paged")
async def nodes(
    plane: ThePlane,
    node_type: Annotated[str | None, QueryParameter(name="type")] = None,
    health: FromQuery[Health | None] = None,
    pool: FromQuery[str | None] = None,
    link: FromQuery[str | None] = None,
    labels: LabelFilter = None,
    q: TextSearch = None,
    sort: Order = None,
    page: Page = 1,
    limit: Limit = 100,
) -> Response[list[NodeView]]:
    wanted = labelled(labels)
    found = [
        node
        for node in plane.fleet.nodes()
        if node_type in (None, node.facts.node_type)
        and health in (None, node.health)
        and pool in (None, node.facts.pool)
        and link in (None, node.link)
        and wanted.items() <= node.facts.labels.items()
        and said(q, node.node_id, node.facts.hostname, node.facts.address, node.facts.region)
    ]
    shown, headers = paged(ordered(found, sort, _NODE_ORDERS), page, limit)
    return Response(_views(plane, shown), headers=headers)


@get("/api/v1/nodes/{node_id:str}", tags=["fleet"], summary="One node")
async def node(plane: ThePlane, node_id: FromPath[str]) -> NodeView:
    (view,) = _views(plane, [plane.fleet.node(NodeId(node_id))])
    return view


@get("/api/v1/nodes/{node_id:str}/history", tags=["fleet"], summary="The last 15 minutes of a node")
async def node_history(plane: ThePlane, node_id: FromPath[str]) -> NodeHistory:
    known = plane.fleet.node(NodeId(node_id))
    curves = plane.telemetry.history.curves(known.node_id)
    return NodeHistory(
        node_id=known.node_id,
        memory_total_mb=known.resources.memory_total_mb,
        at=curves.at_ms,
        cpu_percent=curves.of_node.get("cpu_percent", []),
        memory_used_mb=curves.of_node.get("memory_used_mb", []),
        gpus=[
            GpuHistory(index=gpu.index, name=gpu.name, memory_total_mb=gpu.memory_total_mb, **figures)
            for gpu, figures in zip(known.gpus, curves.of_gpus, strict=False)
        ],
    )


@get("/api/v1/nodes/{node_id:str}/startup", tags=["fleet"], summary="How a node came up the last time, step by step")
async def node_startup(plane: ThePlane, node_id: FromPath[str]) -> Startup:
    return await last_startup(plane.events, plane.fleet.node(NodeId(node_id)))


@delete("/api/v1/nodes/{node_id:str}", tags=["fleet"], summary="Forget a node; it comes back when it reports")
async def forget_node(plane: ThePlane, node_id: FromPath[str]) -> None:
    plane.fleet.carry_out(plane.fleet.book.forget(NodeId(node_id), plane.clock.now_ms()))


@get("/api/v1/workers", tags=["fleet"], summary="Workers of all nodes, filtered, in order and paged")
async def workers(
    plane: ThePlane,
    status: FromQuery[WorkerStatus | None] = None,
    node_id: FromQuery[str | None] = None,
    link: FromQuery[str | None] = None,
    labels: LabelFilter = None,
    idle: Idle = None,
    model: HeldModel = None,
    free_vram_mb: FreeVram = None,
    q: TextSearch = None,
    sort: Order = None,
    page: Page = 1,
    limit: Limit = 100,
) -> Response[list[WorkerView]]:
    wanted = labelled(labels)
    on = [
        node
        for node in plane.fleet.nodes()
        if node_id in (None, node.node_id) and link in (None, node.link) and wanted.items() <= node.facts.labels.items()
    ]
    fit: set[WorkerId] | None = None
    if idle or model is not None or free_vram_mb is not None:
        matching = find(on, idle=bool(idle), model=model, free_memory_mb=free_vram_mb)
        fit = {found.worker.worker_id for found in matching}
    found = [
        worker
        for node in on
        for worker in worker_views(node)
        if status in (None, worker.status)
        and said(q, worker.worker_id, *worker.connectors)
        and (fit is None or worker.worker_id in fit)
    ]
    shown, headers = paged(ordered(found, sort, _WORKER_ORDERS), page, limit)
    return Response(shown, headers=headers)


@get("/api/v1/stats", tags=["fleet"], summary="Figures of the fleet", status_code=http.HTTPStatus.OK)
async def stats(plane: ThePlane) -> Stats:
    known = plane.fleet.nodes()
    summary = _summary(known)
    counts = await plane.jobs.counts()
    return Stats(
        total_nodes=summary.total_nodes,
        healthy_nodes=summary.healthy_nodes,
        unhealthy_nodes=summary.unhealthy_nodes,
        gpu_nodes=summary.gpu_nodes,
        total_gpus=summary.total_gpus,
        connected=sum(node.connected for node in known),
        suspects_itself=plane.fleet.book.suspects_itself,
        jobs={status.value: counts.get(status, 0) for status in JobStatus},
    )


def _views(plane: Plane, shown: list[Node]) -> list[NodeView]:
    now_ms = plane.clock.now_ms()
    return [
        node_view(node, late=plane.fleet.is_late(node), now_ms=now_ms, unanswered=plane.commands.unanswered(node))
        for node in shown
    ]


def _summary(known: list[Node]) -> FleetSummary:
    healthy = sum(node.health is Health.HEALTHY for node in known)
    return FleetSummary(
        total_nodes=len(known),
        healthy_nodes=healthy,
        unhealthy_nodes=len(known) - healthy,
        gpu_nodes=sum(bool(node.gpus) for node in known),
        total_gpus=sum(len(node.gpus) for node in known),
    )
