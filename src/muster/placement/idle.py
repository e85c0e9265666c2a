"""How much of the fleet nobody is waiting for: what may run beside people who want an answer now.

An engine that is as full as it may be has no room. One that somebody uses has room for one, so that the others hardly
notice. One that nobody uses has room for all of its slots but one, which whoever comes next finds free.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.filters import rejections
from muster.placement.wish import Wish


class Hands(Struct, frozen=True, kw_only=True):
    """How many jobs the workers of a node could run at a time, and how many they run that are no background work."""

    slots: int = 0
    others: int = 0


_NO_HANDS = Hands()


def room(
    wish: Wish, candidates: Iterable[Candidate], in_flight: Mapping[str, int], hands: Mapping[NodeId, Hands]
) -> int:
    """Return how many background requests may run at a time, those that run already included.

    `in_flight` counts by candidate key what people wait for.
    """
    by_node: defaultdict[NodeId, int] = defaultdict(int)
    for candidate in candidates:
        if next(rejections(candidate, wish), None) is None:
            by_node[candidate.node_id] += engine_room(candidate, in_flight.get(candidate.key, 0))
    return sum(
        min(count, max(0, hands.get(node_id, _NO_HANDS).slots - hands.get(node_id, _NO_HANDS).others))
        for node_id, count in by_node.items()
    )


def engine_room(candidate: Candidate, in_flight: int) -> int:
    """Leave its own word about busy slots aside: it is seconds old, and has the background work in it."""
    slots = candidate.slots or 1
    if in_flight >= slots:
        return 0
    return 1 if in_flight else max(1, slots - 1)
