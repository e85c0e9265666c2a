"""What a person asks for: one command, to one node, to some or to all of them."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from muster.commands.kinds import KINDS, check_args, command_name
from muster.commands.selector import Selector
from muster.domain.command import Command, CommandStatus
from muster.domain.node import Node
from muster.errors import InvalidInput, NodeNotConnected, NodeNotFound
from muster.ids import CommandId, NodeId, check_name

ALL = "*"
_TIMEOUT_S_MAX = 86_400.0
_ID_CHARS_MAX = 120  # with a node's id after it, it is a name that every link takes


class Order(Struct, frozen=True, kw_only=True):
    """`nodes` are named, or `selector` picks among the connected; neither means all of these.

    `single`: one node was named, and the order's id is that of its command; otherwise it is that of the group.
    """

    command: str
    nodes: tuple[NodeId, ...] = ()
    selector: Selector | None = None
    single: bool = False
    args: dict[str, Any] = field(default_factory=dict)
    timeout_s: float
    command_id: CommandId | None = None
    issued_by: str | None = None


def check_command(given: str | None, args: dict[str, Any]) -> str:
    if not given:
        raise InvalidInput(f"command is missing; known are {', '.join(KINDS)}", field="command")
    name = command_name(given)
    check_args(name, args)
    return name


def check_timeout_s(name: str, given: float | None) -> float:
    if given is None:
        return KINDS[name].timeout_s
    if not 0 < given <= _TIMEOUT_S_MAX:
        raise InvalidInput(
            f"timeout must be above 0 and at most {_TIMEOUT_S_MAX:g} seconds, got {given:g}", field="timeout"
        )
    return given


def check_command_id(given: str) -> CommandId:
    if len(given) > _ID_CHARS_MAX:
        raise InvalidInput(f"command_id must be at most {_ID_CHARS_MAX} characters", field="command_id")
    return CommandId(check_name(given, "command_id"))


def targets(order: Order, known: Iterable[Node]) -> list[Node]:
    """Return the nodes that are meant; who is named must be there, who is picked is one that can be reached."""
    by_id = {node.node_id: node for node in known}
    if order.nodes:
        for node_id in order.nodes:
            if node_id not in by_id:
                raise NodeNotFound(f"no node {node_id!r} in this fleet", field="node_id")
        away = [node_id for node_id in order.nodes if not by_id[node_id].connected]
        if away:
            raise NodeNotConnected(
                f"{', '.join(away)} cannot be reached: its health is {by_id[away[0]].health.value}; "
                "the command was not issued",
                field="node_id",
            )
        return [by_id[node_id] for node_id in dict.fromkeys(order.nodes)]
    found = [
        node
        for _, node in sorted(by_id.items())
        if node.connected and (order.selector is None or order.selector.matches(node))
    ]
    if not found:
        raise NodeNotFound(
            "no connected node in this fleet" if order.selector is None else "no connected node has these labels",
            field="node_id" if order.selector is None else "selector",
        )
    return found


def commands_of(order: Order, command_id: CommandId, meant: Iterable[Node], now_ms: int) -> list[Command]:
    return [
        Command(
            command_id=command_id if order.single else CommandId(f"{command_id}:{node.node_id}"),
            node_id=node.node_id,
            command=order.command,
            args=order.args,
            boot_id=node.boot_id,
            group_id=None if order.single else command_id,
            issued_by=order.issued_by,
            created_at_ms=now_ms,
            deadline_ms=now_ms + round(order.timeout_s * 1000),
        )
        for node in meant
    ]


_LEAST_ADVANCED_FIRST = (
    CommandStatus.CREATED,
    CommandStatus.SENT,
    CommandStatus.ACKED,
    CommandStatus.FAILED,
    CommandStatus.EXPIRED,
    CommandStatus.DONE,
)


def joint_status(commands: Iterable[Command]) -> CommandStatus:
    """Return how a group stands: as its least advanced; once all have ended it is done only if all are."""
    return min((command.status for command in commands), key=_LEAST_ADVANCED_FIRST.index)
