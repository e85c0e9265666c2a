from collections.abc import Sequence

import msgspec

from muster.domain.node import Node
from muster.ids import NodeId
from muster.stores.valkey.server import Server


class ValkeyNodes:
    """A NodeStore: one hash, node id -> record as JSON."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._key = server.key("nodes")

    async def load(self) -> list[Node]:
        return [msgspec.json.decode(body, type=Node) for body in await self._server.execute("HVALS", self._key)]

    async def create(self, node: Node) -> bool:
        body = msgspec.json.encode(node)
        if await self._server.execute("HSETNX", self._key, node.node_id, body):
            return True
        found = await self._server.execute("HGET", self._key, node.node_id)
        return bool(found == body)  # ours, if the reply to an earlier try was lost

    async def save(self, nodes: Sequence[Node]) -> None:
        if nodes:
            flat = [value for node in nodes for value in (node.node_id, msgspec.json.encode(node))]
            await self._server.execute("HSET", self._key, *flat)

    async def delete(self, node_ids: Sequence[NodeId]) -> None:
        if node_ids:
            await self._server.execute("HDEL", self._key, *node_ids)
