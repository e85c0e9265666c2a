"""What exists at the broker, declared by both sides from here: whoever comes first makes it, nobody makes it by hand.

All queues are durable, not exclusive and of the classic kind, which every broker from 3.10 to 4.3 accepts. No queue
names a dead-letter exchange: messages that merely expired are no loss worth keeping. What cannot be read is published
to the dead letters by the control plane itself, with the reason.
"""

from typing import Any

from aiormq.abc import AbstractChannel
from msgspec import Struct, field

VHOST = "agents"

REGISTRATION = "agents.registration"
HEARTBEAT = "agents.heartbeat"
COMMANDS = "agents.commands"
EVENTS = "agents.events"
DEAD_LETTERS = "agents.dead-letters"

REGISTRATION_QUEUE = "registration.control-plane"
HEARTBEAT_QUEUE = "heartbeat.control-plane"
EVENTS_QUEUE = "events.control-plane"
DEAD_LETTERS_QUEUE = "dead-letters.control-plane"

REGISTER_KEY = "register"
DEREGISTER_KEY = "deregister"
EVENTS_KEY = "events"
REPORTS_KEY = "reports"
ALL_NODES_KEY = "node.all"

_REGISTRATION_TTL_MS = 300_000
_HEARTBEAT_TTL_MS = 60_000
_EVENTS_TTL_MS = 3_600_000
_DEAD_LETTERS_TTL_MS = 7 * 86_400_000
_AGENT_TTL_MS = 60_000
_TIMEOUT_S = 10.0


class Queue(Struct, frozen=True, kw_only=True):
    name: str
    exchange: str
    keys: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)


EXCHANGES = {
    REGISTRATION: "direct",
    HEARTBEAT: "fanout",
    COMMANDS: "topic",
    EVENTS: "direct",
    DEAD_LETTERS: "fanout",
}
QUEUES = (
    Queue(
        name=REGISTRATION_QUEUE,
        exchange=REGISTRATION,
        keys=(REGISTER_KEY, DEREGISTER_KEY),
        arguments={"x-message-ttl": _REGISTRATION_TTL_MS, "x-max-length": 100_000},
    ),
    Queue(
        name=HEARTBEAT_QUEUE,
        exchange=HEARTBEAT,
        keys=("",),
        arguments={"x-message-ttl": _HEARTBEAT_TTL_MS, "x-max-length": 100_000},
    ),
    Queue(
        name=EVENTS_QUEUE,
        exchange=EVENTS,
        keys=(EVENTS_KEY, REPORTS_KEY),
        # A full queue refuses what comes: the agent keeps it and tries again.
        arguments={"x-message-ttl": _EVENTS_TTL_MS, "x-max-length": 100_000, "x-overflow": "reject-publish"},
    ),
    Queue(
        name=DEAD_LETTERS_QUEUE,
        exchange=DEAD_LETTERS,
        keys=("",),
        arguments={
            "x-message-ttl": _DEAD_LETTERS_TTL_MS,
            "x-max-length": 1000,
            "x-max-length-bytes": 16 * 1024 * 1024,
        },
    ),
)


def node_key(node_id: str) -> str:
    """Return the routing key of one node. A dot in its id makes more words of the key, and it still names this node."""
    return f"node.{node_id}"


async def declare(channel: AbstractChannel) -> None:
    for name, kind in EXCHANGES.items():
        await channel.exchange_declare(name, exchange_type=kind, durable=True, timeout=_TIMEOUT_S)
    for queue in QUEUES:
        await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments, timeout=_TIMEOUT_S)
        for key in queue.keys:
            await channel.queue_bind(queue.name, queue.exchange, key, timeout=_TIMEOUT_S)


async def depths(channel: AbstractChannel) -> dict[str, tuple[int, int]]:
    """Return, for each queue of the control plane, how many messages are ready and how many consumers it has."""
    found = {}
    for queue in QUEUES:
        told = await channel.queue_declare(queue.name, passive=True, timeout=_TIMEOUT_S)
        found[queue.name] = (told.message_count or 0, told.consumer_count or 0)
    return found


async def declare_for_agent(channel: AbstractChannel, node_id: str) -> str:
    """Declare the queue of one connection of one agent, and return its name.

    It goes with the connection. Two agents that claim the same node id have one each, and a connection that the broker
    still believes in does not stand in the way of the next.
    """
    declared = await channel.queue_declare(
        exclusive=True,
        auto_delete=True,
        arguments={"x-message-ttl": _AGENT_TTL_MS, "x-max-length": 1000},
        timeout=_TIMEOUT_S,
    )
    name = str(declared.queue)
    for key in (node_key(node_id), ALL_NODES_KEY):
        await channel.queue_bind(name, COMMANDS, key, timeout=_TIMEOUT_S)
    return name
