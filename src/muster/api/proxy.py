"""What a proxy in front of model servers tells of itself under `/_/`, and what can be done there."""

import http
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from litestar import get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct
from msgspec.structs import replace

from muster import __version__
from muster.api.plane import Plane, ThePlane
from muster.api.state import GatewayFigures
from muster.control.fleet.candidates import candidates_of
from muster.domain.node import Health, Node
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import CloudNotConfigured, MusterError, NoWorker
from muster.ids import NodeId
from muster.placement.wish import Wish
from muster.ports import RentedMachine

_OLLAMA_PORT = 11434
_GPU_WORKER = "gpu-worker"

NodeQuery = Annotated[str | None, QueryParameter(max_length=128, description="A node's id; else the best worker.")]


class BestWorker(Struct, frozen=True, kw_only=True):
    id: str
    nebula_ip: str | None
    health: Health
    ollama_url: str


class FleetNode(Struct, frozen=True, kw_only=True):
    id: str
    node_type: str
    nebula_ip: str | None
    health: Health
    connected: bool
    draining: bool
    gpu_count: int


class ProxyFleet(Struct, frozen=True, kw_only=True):
    enabled: bool
    total_nodes: int
    gpu_workers: int
    nodes: list[FleetNode]
    best_worker: BestWorker | None


class Remote(Struct, frozen=True, kw_only=True):
    """The best worker, if there is one."""

    url: str | None = None
    node_id: str | None = None
    healthy: bool = False


class StoreState(Struct, frozen=True, kw_only=True):
    reachable: bool
    error: str | None


class ProxyStatus(Struct, frozen=True, kw_only=True):
    """`queue` counts jobs by status; empty while the store is away."""

    version: str
    enabled: bool
    remote: Remote
    paused: list[str]
    queue: dict[str, int]
    gateway: GatewayFigures | None
    store: StoreState


class Paused(Struct, frozen=True, kw_only=True):
    success: bool
    paused: bool
    nodes: list[str]


class Power(Struct, frozen=True, kw_only=True):
    success: bool
    machine: dict[str, Any]


class IdleTime(Struct, frozen=True, kw_only=True):
    """How long a rented machine may idle until it is stopped; 0: it is never stopped for that."""

    ttl_s: Annotated[float, Meta(ge=0, le=604_800)]


@get("/_/fleet", tags=["proxy"], summary="The fleet, and the worker that a request would go to")
async def proxy_fleet(plane: ThePlane) -> ProxyFleet:
    if not plane.fleet_api:
        return ProxyFleet(enabled=False, total_nodes=0, gpu_workers=0, nodes=[], best_worker=None)
    nodes = plane.fleet.nodes()
    return ProxyFleet(
        enabled=True,
        total_nodes=len(nodes),
        gpu_workers=len(_gpu_workers(nodes)),
        nodes=[
            FleetNode(
                id=node.node_id,
                node_type=node.facts.node_type,
                nebula_ip=node.facts.nebula_ip,
                health=node.health,
                connected=node.connected,
                draining=node.draining,
                gpu_count=len(node.gpus),
            )
            for node in nodes
        ],
        best_worker=best_worker(plane),
    )


@get("/_/status", tags=["proxy"], summary="Where requests go, and how queue, gateway and store are")
async def proxy_status(plane: ThePlane) -> ProxyStatus:
    best = best_worker(plane) if plane.fleet_api else None
    queue, gateway, problem = await _inner_state(plane)
    return ProxyStatus(
        version=__version__,
        enabled=plane.fleet_api,
        remote=Remote(url=best.ollama_url, node_id=best.id, healthy=True) if best else Remote(),
        paused=[node.node_id for node in plane.fleet.nodes() if node.draining],
        queue=queue,
        gateway=gateway,
        store=StoreState(reachable=problem is None, error=problem),
    )


@post("/_/pause", tags=["proxy"], summary="No new work for a node; what runs goes on", status_code=http.HTTPStatus.OK)
async def pause(plane: ThePlane, node: NodeQuery = None) -> Paused:
    chosen = node
    if chosen is None:
        best = best_worker(plane)
        if best is None:
            raise NoWorker("there is no GPU worker to pause; name a node: POST /_/pause?node=ID")
        chosen = best.id
    _drain(plane, [NodeId(chosen)], draining=True)
    return Paused(success=True, paused=True, nodes=[chosen])


@post("/_/resume", tags=["proxy"], summary="Take back a node, or all that are paused", status_code=http.HTTPStatus.OK)
async def resume(plane: ThePlane, node: NodeQuery = None) -> Paused:
    chosen = [NodeId(node)] if node is not None else [each.node_id for each in plane.fleet.nodes() if each.draining]
    _drain(plane, chosen, draining=False)
    return Paused(success=True, paused=False, nodes=list(chosen))


@post("/_/start", tags=["proxy"], summary="Wake the rented machine", status_code=http.HTTPStatus.OK)
async def start_machine(plane: ThePlane) -> Power:
    return Power(success=True, machine=dict(await _machine(plane).start()))


@post("/_/stop", tags=["proxy"], summary="Stop the rented machine", status_code=http.HTTPStatus.OK)
async def stop_machine(plane: ThePlane) -> Power:
    return Power(success=True, machine=dict(await _machine(plane).stop()))


@post("/_/ttl", tags=["proxy"], summary="How long the rented machine may idle", status_code=http.HTTPStatus.OK)
async def set_idle_time(plane: ThePlane, data: JSONBody[IdleTime]) -> Power:
    return Power(success=True, machine=dict(await _machine(plane).set_idle_time(data.ttl_s)))


def best_worker(plane: Plane) -> BestWorker | None:
    """Return placement's own choice among the GPU workers."""
    workers = {node.node_id: node for node in _gpu_workers(plane.fleet.nodes())}
    doors = [
        door for node in workers.values() for door in candidates_of(_with_door(node), late=plane.fleet.is_late(node))
    ]
    chosen = plane.decide(Wish(), doors).chosen
    if chosen is None:
        return None
    node, parts = workers[chosen.node_id], urlsplit(chosen.url)
    host = node.facts.nebula_ip or parts.hostname or ""
    return BestWorker(
        id=node.node_id,
        nebula_ip=node.facts.nebula_ip,
        health=node.health,
        ollama_url=url_of(host, parts.port or _OLLAMA_PORT),
    )


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _gpu_workers(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.facts.node_type == _GPU_WORKER or node.gpus]


def _with_door(node: Node) -> Node:
    """Leave the node its Ollama, or one thought of at the usual port, as busy as what it really runs."""
    own = [service for service in node.services if service.url and Dialect.OLLAMA in service.dialects]
    if own:
        return replace(node, services=tuple(own))
    running = [service for service in node.services if service.status is ServiceStatus.RUNNING]
    thought_of = Service(
        name="ollama",
        connector="ollama",
        status=ServiceStatus.RUNNING,
        url=f"http://127.0.0.1:{_OLLAMA_PORT}",
        dialects=(Dialect.OLLAMA,),
        slots=sum(service.slots or 0 for service in running) or None,
        slots_busy=sum(service.slots_busy or 0 for service in running),
    )
    return replace(node, services=(thought_of,))


def _drain(plane: Plane, node_ids: Sequence[NodeId], *, draining: bool) -> None:
    now_ms = plane.clock.now_ms()
    for node_id in node_ids:
        plane.fleet.carry_out(plane.fleet.book.set_draining(node_id, now_ms, draining=draining))


async def _inner_state(plane: Plane) -> tuple[dict[str, int], GatewayFigures | None, str | None]:
    try:
        stats = await plane.scenery.stats()
    except MusterError as error:
        return {}, None, error.message
    return stats.jobs, stats.gateway, None


def _machine(plane: Plane) -> RentedMachine:
    if plane.machine is None:
        raise CloudNotConfigured("no cloud machine is configured here: see `muster cloud --help`")
    return plane.machine


HANDLERS = [proxy_fleet, proxy_status, pause, resume, start_machine, stop_machine, set_idle_time]
