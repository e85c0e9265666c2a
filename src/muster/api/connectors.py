"""Which kinds of jobs there are, what their payloads look like, and where each can run now."""

from collections import defaultdict
from typing import Any

from litestar import get
from msgspec import Struct

from muster.access.roles import Right
from muster.api.plane import Plane, TheCaller, ThePlane


class WhereItRuns(Struct, frozen=True, kw_only=True):
    """`service` is what a job asks for; `node_ids` is null for callers who do not see the fleet."""

    service: str
    workers: int
    node_ids: list[str] | None


class ConnectorView(Struct, frozen=True, kw_only=True):
    """`schema` is the JSON schema of its payloads, null where this control plane does not know it."""

    name: str
    provides: tuple[str, ...]
    schema: dict[str, Any] | None
    available: list[WhereItRuns]


class ConnectorsAnswer(Struct, frozen=True, kw_only=True):
    """`broken` are connectors of other packages that cannot be used here, with the reason."""

    success: bool
    connectors: list[ConnectorView]
    broken: dict[str, str]
    timestamp: int


@get("/api/connectors", tags=["jobs"], summary="Kinds of jobs: their payloads, and where they can run now")
async def connectors(plane: ThePlane, caller: TheCaller) -> ConnectorsAnswer:
    running = _running(plane)
    sees_nodes = Right.VIEW in caller.rights
    views = [
        ConnectorView(
            name=kind.name,
            provides=kind.provides,
            schema=dict(kind.schema),
            available=_places(running.pop(kind.name, {}), sees_nodes=sees_nodes),
        )
        for kind in plane.job_kinds
    ]
    views += [
        ConnectorView(name=name, provides=(name,), schema=None, available=_places(places, sees_nodes=sees_nodes))
        for name, places in sorted(running.items())
    ]
    return ConnectorsAnswer(
        success=True, connectors=views, broken=dict(plane.broken_connectors), timestamp=plane.clock.now_ms()
    )


def _running(plane: Plane) -> dict[str, dict[str, list[str]]]:
    """Return the node of each worker by connector and service: `http:thumbs` is a service of `http`."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node in plane.fleet.nodes():
        for worker in node.workers if node.connected and not node.draining else ():
            for name, status in worker.connector_statuses.items():
                if status == "running":
                    found[name.partition(":")[0]][name].append(node.node_id)
    return found


def _places(places: dict[str, list[str]], *, sees_nodes: bool) -> list[WhereItRuns]:
    return [
        WhereItRuns(service=service, workers=len(nodes), node_ids=sorted(set(nodes)) if sees_nodes else None)
        for service, nodes in sorted(places.items())
    ]
