"""Commands and nodes, as short as tests need them."""

from typing import Any

from muster.domain.command import Command, CommandStatus
from muster.domain.node import Health, Node, NodeFacts
from muster.ids import CommandId, NodeId

NODE = NodeId("gpu-1")
FIRST = CommandId("cmd-1")


def command(command_id: str = FIRST, node_id: str = NODE, deadline_ms: int = 1_000, **more: Any) -> Command:
    fields = {"command": "status", "status": CommandStatus.CREATED} | more
    return Command(command_id=CommandId(command_id), node_id=NodeId(node_id), deadline_ms=deadline_ms, **fields)


def node(node_id: str = NODE, *, connected: bool = True, **facts: Any) -> Node:
    return Node(
        facts=NodeFacts(node_id=NodeId(node_id), **facts),
        health=Health.HEALTHY if connected else Health.DEAD,
        connected=connected,
        boot_id=f"{node_id}-boot",
    )
