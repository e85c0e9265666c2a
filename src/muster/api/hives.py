"""Telemetry in the words of hives and their queen: hives report here, and anybody may listen to all nodes."""

import http
from collections.abc import Iterator

from litestar import get, post
from litestar.params import JSONBody
from litestar.response import Stream
from msgspec import Struct

from muster.api.plane import TheCaller, ThePlane
from muster.api.streams import event_stream
from muster.api.views import rfc3339
from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.domain.node import Health, Node
from muster.domain.worker import WorkerStatus
from muster.ids import NodeId
from muster.registry.health import LOST
from muster.registry.workers import workers_of
from muster.wire.hives import LINK, HiveHeartbeat, HiveWorker, operational_status, workers_told

_IDS_MAX = 1000  # told by name; the counts are whole
_AGENT_GAP_S = 1.0
_AVAILABLE = frozenset({Health.HEALTHY, Health.DEGRADED})


class HeartbeatTaken(Struct, frozen=True, kw_only=True):
    success: bool


class QueenTelemetry(Struct, frozen=True, kw_only=True, tag_field="type", tag="queen"):
    """Online is who is heard, available who takes work now: a worker that is known to be idle. At most 1,000 ids."""

    workers_online: int
    workers_available: int
    hives_online: int
    hives_available: int
    worker_ids: list[str]
    hive_ids: list[str]
    timestamp: str


class HiveTelemetry(Struct, frozen=True, kw_only=True, tag_field="type", tag="hive_telemetry"):
    """A node and the processes that serve on it; of one that is not heard there are none."""

    hive_id: str
    timestamp: str
    operational_status: str
    health_status: Health
    link: str
    workers: tuple[HiveWorker, ...]


@post(
    "/v1/hive-heartbeat",
    tags=["older APIs"],
    summary="How a hive and its workers are",
    status_code=http.HTTPStatus.OK,
)
async def hive_heartbeat(plane: ThePlane, caller: TheCaller, data: JSONBody[HiveHeartbeat]) -> HeartbeatTaken:
    """Say it every second. It needs no registration, and a hive that was away is back with the first one."""
    caller.check_speaks_for(data.hive.id)
    await plane.telemetry.hives.heartbeat(data)
    return HeartbeatTaken(success=True)


@get("/v1/heartbeats/stream", tags=["older APIs"], summary="Telemetry of all nodes, live, as server-sent events")
async def heartbeat_stream(plane: ThePlane) -> Stream:
    """Send `event: heartbeat`: `queen` every 2.5 s, `hive_telemetry` when a node is heard; at first all as it is."""
    return event_stream(plane.telemetry.stream.stream())


class TelemetryScenery:
    """Implements what the stream tells: every node counts as a hive, whatever link it uses."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock

    def queen(self) -> QueenTelemetry:
        hives, workers, idle, available = [], list[str](), 0, 0
        for node in self._fleet.nodes():
            if not _heard(node):
                continue
            hives.append(node.node_id)
            takes_work = node.health in _AVAILABLE and not node.draining and not self._fleet.is_late(node)
            available += takes_work
            for found in workers_of(node):
                workers.append(found.worker.worker_id)
                idle += takes_work and found.is_idle
        return QueenTelemetry(
            workers_online=len(workers),
            workers_available=idle,
            hives_online=len(hives),
            hives_available=available,
            worker_ids=workers[:_IDS_MAX],
            hive_ids=list(hives[:_IDS_MAX]),
            timestamp=rfc3339(self._clock.now_ms()),
        )

    def hive(self, node_id: NodeId) -> HiveTelemetry | None:
        node = self._fleet.book.get(node_id)
        return None if node is None else self._telemetry(node)

    def hives(self) -> Iterator[HiveTelemetry]:
        return map(self._telemetry, self._fleet.nodes())

    def gap_s(self, node_id: NodeId) -> float:
        """Tell every heartbeat of a hive; an agent may have news more often."""
        node = self._fleet.book.get(node_id)
        return 0.0 if node is None or node.link == LINK else _AGENT_GAP_S

    def _telemetry(self, node: Node) -> HiveTelemetry:
        busy = any(found.status is WorkerStatus.BUSY for found in workers_of(node))
        return HiveTelemetry(
            hive_id=node.node_id,
            timestamp=rfc3339(self._clock.now_ms()),
            operational_status=operational_status(node.phase, busy=busy),
            health_status=node.health,
            link=node.link,
            workers=workers_told(node.services, node.processes, node.gpus) if _heard(node) else (),
        )


def _heard(node: Node) -> bool:
    return node.connected and node.health not in LOST


HANDLERS = [hive_heartbeat, heartbeat_stream]
