"""The states of a node's health: one table; what it lacks cannot happen."""

from enum import StrEnum

from muster.domain.node import Health
from muster.errors import InvalidTransition
from muster.ids import NodeId


class Signal(StrEnum):
    REGISTERED = "registered"
    HEARD_HEALTHY = "heard_healthy"
    HEARD_DEGRADED = "heard_degraded"
    HEARD_UNHEALTHY = "heard_unhealthy"
    WENT_STALE = "went_stale"
    WENT_DEAD = "went_dead"


ALIVE = frozenset({Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY})
LOST = frozenset({Health.STALE, Health.DEAD})

# A heartbeat brings a node back from anywhere; silence only ever leads down, one way.
TABLE: dict[tuple[Health, Signal], Health] = {
    (Health.REGISTERING, Signal.REGISTERED): Health.REGISTERING,
    (Health.REGISTERING, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.REGISTERING, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.REGISTERING, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
    (Health.REGISTERING, Signal.WENT_STALE): Health.STALE,
    (Health.REGISTERING, Signal.WENT_DEAD): Health.DEAD,
    (Health.HEALTHY, Signal.REGISTERED): Health.REGISTERING,
    (Health.HEALTHY, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.HEALTHY, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.HEALTHY, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
    (Health.HEALTHY, Signal.WENT_STALE): Health.STALE,
    (Health.HEALTHY, Signal.WENT_DEAD): Health.DEAD,
    (Health.DEGRADED, Signal.REGISTERED): Health.REGISTERING,
    (Health.DEGRADED, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.DEGRADED, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.DEGRADED, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
    (Health.DEGRADED, Signal.WENT_STALE): Health.STALE,
    (Health.DEGRADED, Signal.WENT_DEAD): Health.DEAD,
    (Health.UNHEALTHY, Signal.REGISTERED): Health.REGISTERING,
    (Health.UNHEALTHY, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.UNHEALTHY, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.UNHEALTHY, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
    (Health.UNHEALTHY, Signal.WENT_STALE): Health.STALE,
    (Health.UNHEALTHY, Signal.WENT_DEAD): Health.DEAD,
    (Health.STALE, Signal.REGISTERED): Health.REGISTERING,
    (Health.STALE, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.STALE, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.STALE, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
    (Health.STALE, Signal.WENT_DEAD): Health.DEAD,
    (Health.DEAD, Signal.REGISTERED): Health.REGISTERING,
    (Health.DEAD, Signal.HEARD_HEALTHY): Health.HEALTHY,
    (Health.DEAD, Signal.HEARD_DEGRADED): Health.DEGRADED,
    (Health.DEAD, Signal.HEARD_UNHEALTHY): Health.UNHEALTHY,
}


def next_health(node_id: NodeId, health: Health, signal: Signal) -> Health:
    try:
        return TABLE[health, signal]
    except KeyError:
        raise InvalidTransition(f"node {node_id} is {health}: {signal} cannot follow", node_id=node_id) from None
