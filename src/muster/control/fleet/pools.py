"""Nodes that speak of pools: taken in by the same registry as every agent."""

from collections.abc import Iterator

from msgspec import Struct

from muster.clock import Clock, Rng
from muster.control.fleet.fleet import Fleet
from muster.domain.node import Node
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, PoolAmbiguous, PoolNotFound
from muster.ids import NodeId, new_id
from muster.ports import NodeLink
from muster.wire import Deregistration
from muster.wire.pools import LINK, PoolHeartbeat, RegisterNode, heartbeat_of, registration_of

_NAMED_MAX = 10


class Pool(Struct, frozen=True):
    """A service on a node, whatever link it came by."""

    node: Node
    service: Service

    @property
    def key(self) -> str:
        return f"{self.node.node_id}/{self.service.name}"

    @property
    def ready(self) -> bool:
        """By its own word."""
        return self.service.status is ServiceStatus.RUNNING

    @property
    def draining(self) -> bool:
        return self.node.draining or self.service.draining or self.service.name in self.node.drained_services


class PoolNodes:
    """`interval_s` is how often such a node is to report; `link` is where its messages end."""

    def __init__(self, fleet: Fleet, link: NodeLink, clock: Clock, rng: Rng, *, interval_s: float) -> None:
        self._fleet = fleet
        self._link = link
        self._clock = clock
        self._rng = rng
        self.interval_s = interval_s

    async def register(self, message: RegisterNode) -> int:
        """Take the node in and return in how many ms its heartbeat is due. Each registration is a new life of it."""
        boot_id = new_id("boot", self._clock.now_ms(), self._rng)
        reply = await self._link.register(registration_of(message, boot_id, self.interval_s))
        return reply.next_heartbeat_ms

    async def heartbeat(self, node_id: NodeId, message: PoolHeartbeat) -> int:
        """Raise NodeNotFound for a node that is not registered: only a registration says where it is."""
        node = self._fleet.node(node_id)
        if node.link != LINK:
            raise Conflict(f"node {node_id} reports over {node.link}: register it here to move it", field="node_id")
        reply = await self._link.heartbeat(heartbeat_of(message, node, self.interval_s))
        return reply.next_heartbeat_ms

    async def deregister(self, node_id: NodeId) -> None:
        node = self._fleet.node(node_id)
        if node.link == LINK:
            await self._link.deregister(
                Deregistration(node_id=node_id, boot_id=node.boot_id, reason="said goodbye over /v2")
            )
        else:
            self._fleet.carry_out(self._fleet.book.forget(node_id, self._clock.now_ms()))

    def nodes(self) -> list[Node]:
        """All nodes, whatever their link."""
        return self._fleet.nodes()

    def find(self, pool_id: str, node_id: str | None = None) -> Pool:
        """Return the one pool of that id, on that node if one is named; raise PoolNotFound or PoolAmbiguous."""
        found = [
            pool for pool in self._pools() if pool.service.name == pool_id and node_id in (None, pool.node.node_id)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            keys = [pool.key for pool in found]
            raise PoolAmbiguous(
                f"{len(keys)} nodes have a pool {pool_id!r}: name one of {', '.join(keys[:_NAMED_MAX])}",
                field="pool_id",
                choices=keys[:_NAMED_MAX],
            )
        where = f" on node {node_id!r}" if node_id is not None else ""
        raise PoolNotFound(f"no pool {pool_id!r}{where}; GET /v2/nodes lists what there is", field="pool_id")

    def set_draining(self, pool: Pool, *, draining: bool) -> Pool:
        now_ms = self._clock.now_ms()
        effects = self._fleet.book.set_service_draining(pool.node.node_id, pool.service.name, now_ms, draining=draining)
        self._fleet.carry_out(effects)
        return self.find(pool.service.name, pool.node.node_id)

    def is_live(self, pool: Pool) -> bool:
        return pool.node.connected and not self._fleet.is_late(pool.node)

    def _pools(self) -> Iterator[Pool]:
        for node in self._fleet.nodes():
            for service in node.services:
                yield Pool(node, service)
