"""Hives: nodes that report in the words of `/v1/hive-heartbeat`, taken in by the same registry as every agent."""

from muster.clock import Clock, Rng
from muster.control.fleet.fleet import Fleet
from muster.domain.node import Node
from muster.errors import Conflict, InvalidInput
from muster.ids import NodeId, check_node_id, new_id
from muster.ports import NodeLink
from muster.registry.health import LOST
from muster.wire.hives import LINK, HiveHeartbeat, heartbeat_of


class Hives:
    """`interval_s` is how often one may be expected to report; `link` is where its messages end."""

    def __init__(self, fleet: Fleet, link: NodeLink, clock: Clock, rng: Rng, *, interval_s: float) -> None:
        self._fleet = fleet
        self._link = link
        self._clock = clock
        self._rng = rng
        self._interval_s = interval_s

    async def heartbeat(self, message: HiveHeartbeat) -> None:
        """Take it in; it needs no registration. Conflict while the node's own agent reports, which says more."""
        node_id = _hive_id(message)
        known = self._fleet.book.get(node_id)
        if known is not None and known.link != LINK:
            if known.connected and known.health not in LOST:
                raise Conflict(
                    f"node {node_id} reports over {known.link}: give the hive an id of its own, or stop the agent",
                    field="hive.id",
                )
            known = None
        await self._link.heartbeat(heartbeat_of(message, known, self._boot_of(known), self._interval_s))

    def _boot_of(self, known: Node | None) -> str:
        """Give a hive that comes for the first time, or after an agent, a boot of its own."""
        return known.boot_id if known is not None else new_id("boot", self._clock.now_ms(), self._rng)


def _hive_id(message: HiveHeartbeat) -> NodeId:
    try:
        return check_node_id(message.hive.id)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="hive.id") from None
