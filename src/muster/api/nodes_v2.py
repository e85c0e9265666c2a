"""Nodes as `/v2` speaks of them: pool managers register and report here; every node of the fleet is listed."""

import http
from collections import defaultdict
from enum import StrEnum
from typing import Annotated

from litestar import Response, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Struct

from muster.api.lists import LabelFilter, Limit, Page, TextSearch, labelled, paged, said
from muster.api.models import names_held
from muster.api.plane import TheCaller, ThePlane
from muster.api.views import rfc3339
from muster.control.fleet.pools import Pool
from muster.domain.node import Health, Node, Phase
from muster.ids import NodeId
from muster.registry.health import LOST
from muster.wire.pools import PoolHeartbeat, RegisterNode


class NodeStatus(StrEnum):
    REGISTERING = "Registering"  # no heartbeat yet
    ONLINE = "Online"
    DRAINING = "Draining"
    OFFLINE = "Offline"  # missed heartbeats: it gets no work
    FAILED = "Failed"  # by its own word


class Registered(Struct, frozen=True, kw_only=True):
    success: bool
    node_id: str
    message: str
    next_heartbeat_ms: int


class HeartbeatTaken(Struct, frozen=True, kw_only=True):
    success: bool
    next_heartbeat_ms: int


class PoolView(Struct, frozen=True, kw_only=True):
    """A service of a node. What nobody has said is null."""

    pool_id: str
    key: str
    ready: bool
    draining: bool
    slots_free: int | None
    slots_total: int | None
    vram_free_bytes: int | None
    vram_total_bytes: int | None
    engine: str
    models_available: list[str]
    url: str | None


class NodeEntry(Struct, frozen=True, kw_only=True):
    node_id: str
    machine_id: str | None
    address: str | None
    status: NodeStatus
    link: str
    version: str | None
    labels: dict[str, str]
    last_heartbeat: str
    registered_at: str
    pools: list[PoolView]


class NodeEntries(Struct, frozen=True, kw_only=True):
    nodes: list[NodeEntry]
    count: int


class Availability(Struct, frozen=True, kw_only=True):
    """`nodes` has the models of each node that is heard."""

    nodes: dict[str, list[str]]
    total_models: int
    replicated_models: list[str]
    single_node_models: list[str]


@post(
    "/v2/nodes/register",
    tags=["older APIs"],
    summary="Take in a node that speaks of pools",
    status_code=http.HTTPStatus.OK,
)
async def register_node(plane: ThePlane, caller: TheCaller, data: JSONBody[RegisterNode]) -> Registered:
    caller.check_speaks_for(data.node_id)
    due_ms = await plane.pools.register(data)
    return Registered(success=True, node_id=data.node_id, message="registered", next_heartbeat_ms=due_ms)


@post(
    "/v2/nodes/{node_id:str}/heartbeat",
    tags=["older APIs"],
    summary="How the pools of a node are",
    status_code=http.HTTPStatus.OK,
)
async def node_heartbeat(plane: ThePlane, node_id: FromPath[str], data: JSONBody[PoolHeartbeat]) -> HeartbeatTaken:
    due_ms = await plane.pools.heartbeat(NodeId(node_id), data)
    return HeartbeatTaken(success=True, next_heartbeat_ms=due_ms)


@get("/v2/nodes", tags=["older APIs"], summary="All nodes with their pools, from their registration on")
async def list_nodes(
    plane: ThePlane,
    status: FromQuery[NodeStatus | None] = None,
    link: FromQuery[str | None] = None,
    labels: LabelFilter = None,
    q: TextSearch = None,
    page: Page = 1,
    limit: Limit = 1000,
) -> Response[NodeEntries]:
    wanted = labelled(labels)
    found = [
        node
        for node in plane.pools.nodes()
        if status in (None, status_of(node, late=plane.fleet.is_late(node)))
        and link in (None, node.link)
        and wanted.items() <= node.facts.labels.items()
        and said(q, node.node_id, node.facts.hostname)
    ]
    shown, headers = paged(found, page, limit)
    entries = [_entry(node, late=plane.fleet.is_late(node)) for node in shown]
    return Response(NodeEntries(nodes=entries, count=len(found)), headers=headers)


@delete("/v2/nodes/{node_id:str}", tags=["older APIs"], summary="A node says goodbye, or is dropped")
async def deregister_node(plane: ThePlane, node_id: FromPath[str]) -> None:
    await plane.pools.deregister(NodeId(node_id))


@get("/v2/catalog/availability", tags=["older APIs"], summary="Which models are on one node only, which on several")
async def availability(
    plane: ThePlane,
    model: Annotated[str | None, QueryParameter(max_length=256, description="Part of a model's name.")] = None,
) -> Availability:
    """Speak of every node that is heard, whatever its link: of what its services offer and what it keeps."""
    part = (model or "").casefold()
    by_node: dict[str, list[str]] = {
        node.node_id: _models(node, part)
        for node in plane.pools.nodes()
        if node.connected and not plane.fleet.is_late(node)
    }
    holders: defaultdict[str, int] = defaultdict(int)
    for name in (name for names in by_node.values() for name in names):
        holders[name] += 1
    return Availability(
        nodes=by_node,
        total_models=len(holders),
        replicated_models=sorted(name for name, count in holders.items() if count > 1),
        single_node_models=sorted(name for name, count in holders.items() if count == 1),
    )


def status_of(node: Node, *, late: bool) -> NodeStatus:
    if node.health in LOST or not node.connected:
        return NodeStatus.OFFLINE
    if node.health is Health.UNHEALTHY or node.phase is Phase.ERROR:
        return NodeStatus.FAILED
    if late:
        return NodeStatus.OFFLINE
    if node.draining:
        return NodeStatus.DRAINING
    return NodeStatus.REGISTERING if node.health is Health.REGISTERING else NodeStatus.ONLINE


def pool_view(pool: Pool) -> PoolView:
    service = pool.service
    free = None if service.slots is None or service.slots_busy is None else max(0, service.slots - service.slots_busy)
    return PoolView(
        pool_id=service.name,
        key=pool.key,
        ready=pool.ready,
        draining=pool.draining,
        slots_free=free,
        slots_total=service.slots,
        vram_free_bytes=service.memory_free_bytes,
        vram_total_bytes=service.memory_total_bytes,
        engine=service.connector,
        models_available=[model.name for model in service.models],
        url=service.url,
    )


def _entry(node: Node, *, late: bool) -> NodeEntry:
    facts = node.facts
    return NodeEntry(
        node_id=node.node_id,
        machine_id=facts.hostname,
        address=facts.service_url or facts.address,
        status=status_of(node, late=late),
        link=node.link,
        version=facts.version,
        labels=facts.labels,
        last_heartbeat=rfc3339(node.last_seen_ms),
        registered_at=rfc3339(node.registered_at_ms),
        pools=[pool_view(Pool(node, service)) for service in node.services],
    )


def _models(node: Node, part: str) -> list[str]:
    return sorted(name for name in names_held(node) if part in name.casefold())


HANDLERS = [register_node, node_heartbeat, list_nodes, deregister_node, availability]
