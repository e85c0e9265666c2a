"""Where the nodes' calls over the broker end."""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from msgspec import Struct

from muster.clock import Clock, Rng
from muster.domain.command import Command
from muster.domain.event import Event
from muster.domain.standing import BrokerQueue, BrokerStanding
from muster.errors import UpstreamFailed
from muster.ids import NodeId, new_id
from muster.links.amqp.address import BrokerAddress
from muster.links.amqp.connection import BACKOFF_S, BrokerConnection
from muster.links.amqp.intake import Intake
from muster.links.amqp.management import Management
from muster.links.amqp.messages import (
    HeartbeatMessage,
    RegistrationMessage,
    node_id_of,
    read_deregistration,
    read_heartbeat,
    read_registration,
    wants_to_leave,
)
from muster.links.amqp.post import LINK, Post, Roster
from muster.links.amqp.topology import (
    DEAD_LETTERS,
    EVENTS_QUEUE,
    HEARTBEAT_QUEUE,
    QUEUES,
    REGISTRATION_QUEUE,
    REPORTS_KEY,
    depths,
)
from muster.ports import NodeLink
from muster.wire import AgentEvents, CommandReports, decode

__all__ = ["LINK", "AmqpIngest", "QueueFigures"]

log = structlog.get_logger()

_TOLD_EVERY_S = 1.0
_LOOK_S = 2.0
_ALIVE = "see whether the broker is overloaded: rabbitmqctl status"
_REASON_CHARS_MAX = 500


class QueueFigures(Struct, frozen=True):
    queue: str
    received: int
    refused: int


class AmqpIngest:
    """A Lifecycle. `nodes` is where messages go, `roster` is what the control plane knows of its nodes.

    It starts although the broker is away, and goes on whatever a message holds.
    """

    def __init__(
        self,
        address: BrokerAddress,
        nodes: NodeLink,
        roster: Roster,
        emit: Callable[[Iterable[Event]], None],
        clock: Clock,
        rng: Rng,
        *,
        management: Management | None = None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._address = address
        self._management = management
        self._nodes = nodes
        self._roster = roster
        self._emit = emit
        self._clock = clock
        self._rng = rng
        self._broker = BrokerConnection(address, self._opened, rng, base_s=backoff_s)
        self._post = Post(self._send, nodes, roster)
        self._intakes = (
            Intake(REGISTRATION_QUEUE, self._take_registration, self._refuse, wait_for_store=True),
            # A heartbeat that cannot be taken is not kept either: the next one says more.
            Intake(HEARTBEAT_QUEUE, self._take_heartbeat, self._refuse, wait_for_store=False),
            Intake(EVENTS_QUEUE, self._take_events, self._refuse, wait_for_store=True),
        )
        self._refused = {intake.queue: 0 for intake in self._intakes}
        self._told_refused = 0
        self._tell_at_s = 0.0

    async def start(self) -> None:
        if self._management is not None:
            await self._management.start()
        await self._post.start()
        await self._broker.start()

    async def stop(self) -> None:
        await self._post.stop()
        await self._broker.stop()
        for intake in self._intakes:
            await intake.close()
        if self._management is not None:
            await self._management.stop()

    @property
    def connected(self) -> bool:
        return self._broker.up.is_set()

    @property
    def reconnects(self) -> int:
        return max(0, self._broker.connections - 1)

    def figures(self) -> list[QueueFigures]:
        return [QueueFigures(intake.queue, intake.received, self._refused[intake.queue]) for intake in self._intakes]

    async def standing(self) -> BrokerStanding:
        """Return how the broker stands, as a BrokerProbe does."""
        broker, management = self._broker, self._management
        looking = asyncio.create_task(management.look()) if management is not None and self.connected else None
        problem, next_step, found = None, None, dict[str, tuple[int, int]]()
        try:
            found = await broker.ask(depths, _LOOK_S)
        except UpstreamFailed as error:
            problem, next_step = (error.message, _ALIVE) if self.connected else (broker.problem, broker.next_step)
        return BrokerStanding(
            address=str(self._address),
            connected=self.connected,
            since_ms=self._clock.now_ms() - round(1000 * broker.unchanged_s),
            reconnects=self.reconnects,
            product=broker.product,
            error=problem,
            next_step=next_step,
            queues=tuple(self._queue(queue.name, *found.get(queue.name, (None, None))) for queue in QUEUES),
            management=await looking if looking is not None else None,
        )

    def _queue(self, name: str, ready: int | None, consumers: int | None) -> BrokerQueue:
        intake = next((intake for intake in self._intakes if intake.queue == name), None)  # none of the dead letters
        return BrokerQueue(
            name=name,
            ready=ready,
            consumers=consumers,
            unacked=intake.unacked if intake else 0,
            received=intake.received if intake else 0,
            refused=self._refused.get(name, 0),
        )

    def command_issued(self, command: Command) -> None:
        self._post.look(command.node_id)

    def look(self, node_id: NodeId) -> None:
        """There may be something for this node."""
        self._post.look(node_id)

    # --- the broker --------------------------------------------------------------------------------------------------

    async def _opened(self, connection: AbstractConnection) -> list[AbstractChannel]:
        channels = [await intake.open(connection, self._broker.give_up) for intake in self._intakes]
        self._post.look_at_all()
        return channels

    async def _send(self, body: bytes, exchange: str, key: str) -> bool:
        return await self._broker.publish(body, exchange, key, persistent=False)

    async def _refuse(self, queue: str, message: DeliveredMessage, reason: str) -> None:
        """Put a message aside where people can look at it, with the reason."""
        headers = {"reason": reason[:_REASON_CHARS_MAX], "queue": queue, "routing_key": message.routing_key or ""}
        try:
            await self._broker.publish(message.body, DEAD_LETTERS, "", headers=headers)
        except UpstreamFailed as error:
            log.warning("dead_letter_not_kept", queue=queue, error=error.message)
        self._refused[queue] += 1
        now_s = self._clock.monotonic_s()
        if now_s >= self._tell_at_s:  # a flood of them is told by its count
            total = sum(self._refused.values())
            data = {"queue": queue, "reason": headers["reason"], "count": total - self._told_refused}
            self._tell_at_s, self._told_refused = now_s + _TOLD_EVERY_S, total
            self._emit([Event(kind="message_refused", key=queue, at_ms=self._clock.now_ms(), data=data)])

    # --- messages ----------------------------------------------------------------------------------------------------

    async def _take_registration(self, key: str, body: bytes) -> None:
        message = decode(body, RegistrationMessage)
        node_id = node_id_of(message)
        known = self._roster.get(node_id)
        if wants_to_leave(message, key):
            await self._nodes.deregister(read_deregistration(message, known, self._new_boot))
            return
        await self._nodes.register(read_registration(message, known, self._new_boot))
        self._post.look(node_id)

    async def _take_heartbeat(self, _: str, body: bytes) -> None:
        message = decode(body, HeartbeatMessage)
        heartbeat = read_heartbeat(message, self._roster.get(node_id_of(message)), self._new_boot)
        reply = await self._nodes.heartbeat(heartbeat)
        if not reply.known or reply.superseded or reply.draining != heartbeat.draining:
            self._post.correct(heartbeat.facts.node_id, heartbeat.boot_id, reply)

    async def _take_events(self, key: str, body: bytes) -> None:
        if key == REPORTS_KEY:
            await self._nodes.report_commands(decode(body, CommandReports))
        else:
            await self._nodes.report_events(decode(body, AgentEvents))

    def _new_boot(self) -> str:
        return new_id("boot", self._clock.now_ms(), self._rng)
