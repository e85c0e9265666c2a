"""The boots of nodes that left: what they sent before must neither bring them back nor retire their next boot."""

from msgspec import Struct

from muster.ids import NodeId
from muster.registry.boots import RETIRED_MAX
from muster.wire.peers import NodeGone


class _Left(Struct):
    gone: NodeGone
    ignored_until_ms: int  # what is heard of its boots later was not merely late


class Departed:
    def __init__(self, nodes_max: int) -> None:
        self._nodes_max = nodes_max
        self._left: dict[NodeId, _Left] = {}

    def remember(self, gone: NodeGone, ignored_until_ms: int) -> None:
        """Note a goodbye. One that is known already, told on by another control plane, counts from the first time."""
        known = self._left.get(gone.node_id)
        if known is not None:
            if known.gone.revision >= gone.revision and set(known.gone.boot_ids).issuperset(gone.boot_ids):
                return
            boot_ids = tuple(dict.fromkeys((*known.gone.boot_ids, *gone.boot_ids)))[-RETIRED_MAX:]
            gone = NodeGone(gone.node_id, boot_ids, max(known.gone.revision, gone.revision))
            del self._left[gone.node_id]
        self._left[gone.node_id] = _Left(gone, ignored_until_ms)
        if len(self._left) > self._nodes_max:
            del self._left[next(iter(self._left))]

    def get(self, node_id: NodeId) -> NodeGone:
        left = self._left.get(node_id)
        return left.gone if left else NodeGone(node_id)

    def ignores(self, node_id: NodeId, boot_id: str, now_ms: int) -> bool:
        """Whether a message of this boot was merely long on the way."""
        left = self._left.get(node_id)
        return left is not None and boot_id in left.gone.boot_ids and now_ms <= left.ignored_until_ms

    def returned(self, node_id: NodeId) -> NodeGone:
        """Forget that it left."""
        left = self._left.pop(node_id, None)
        return left.gone if left else NodeGone(node_id)

    def forget(self, before_ms: int) -> None:
        for node_id in [node_id for node_id, left in self._left.items() if left.ignored_until_ms < before_ms]:
            del self._left[node_id]

    def shift(self, by_ms: int) -> None:
        """Move along with our clock, which was set."""
        for left in self._left.values():
            left.ignored_until_ms += by_ms
