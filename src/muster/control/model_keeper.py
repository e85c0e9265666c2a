"""Models that nodes keep themselves: what the gateway wishes of them becomes commands, each followed to its end."""

import asyncio
from collections.abc import AsyncIterator

from muster.commands.lifecycle import ENDED
from muster.commands.order import Order, check_timeout_s
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.domain.artifact import ArtifactState
from muster.domain.command import CommandStatus
from muster.errors import UpstreamFailed
from muster.ids import NodeId

_LOOK_S = 0.25  # reports of nodes come a few times a second
_ISSUED_BY = "gateway"


class NodeModels:
    """A ModelKeeper."""

    def __init__(self, commands: CommandService, fleet: Fleet) -> None:
        self._commands = commands
        self._fleet = fleet

    def holders(self, name: str) -> list[NodeId]:
        return [
            node.node_id
            for node in self._fleet.nodes()
            if node.connected
            and any(kept.name == name and kept.state is ArtifactState.ON_DISK for kept in node.artifacts.kept)
        ]

    def pull(self, model: str, node_id: NodeId) -> AsyncIterator[str]:
        return self._followed("pull_model", model, node_id)

    def remove(self, model: str, node_id: NodeId) -> AsyncIterator[str]:
        return self._followed("remove_model", model, node_id)

    async def _followed(self, kind: str, model: str, node_id: NodeId) -> AsyncIterator[str]:
        """Yield what the node says of the way; that nobody listens any more does not end its work."""
        order = Order(
            command=kind,
            nodes=(node_id,),
            single=True,
            args={"model": model},
            timeout_s=check_timeout_s(kind, None),
            issued_by=_ISSUED_BY,
        )
        issued = await self._commands.issue(order)
        said: str | None = None
        while True:
            (command,) = self._commands.find(issued.command_id)
            message = command.progress.message if command.progress else None
            if message is not None and message != said:
                said = message
                yield message
            if command.status in ENDED:
                break
            await asyncio.sleep(_LOOK_S)
        if command.status is not CommandStatus.DONE:
            raise UpstreamFailed(command.error or f"{node_id} did not do it in time")
