from collections.abc import Sequence

from muster.domain.node import Node
from muster.ids import NodeId


class MemoryNodes:
    """A NodeStore."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, Node] = {}

    async def load(self) -> list[Node]:
        return list(self._nodes.values())

    async def create(self, node: Node) -> bool:
        return self._nodes.setdefault(node.node_id, node) == node

    async def save(self, nodes: Sequence[Node]) -> None:
        self._nodes |= {node.node_id: node for node in nodes}

    async def delete(self, node_ids: Sequence[NodeId]) -> None:
        for node_id in node_ids:
            self._nodes.pop(node_id, None)
