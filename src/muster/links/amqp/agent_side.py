"""A node's calls over the broker."""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.errors import Forbidden, InvalidInput, UpstreamFailed
from muster.ids import NodeId
from muster.links.amqp.address import BrokerAddress
from muster.links.amqp.connection import BACKOFF_S, BrokerConnection
from muster.links.amqp.messages import Letter, deregistration_body, heartbeat_body, registration_body
from muster.links.amqp.topology import (
    DEREGISTER_KEY,
    EVENTS,
    EVENTS_KEY,
    HEARTBEAT,
    REGISTER_KEY,
    REGISTRATION,
    REPORTS_KEY,
    declare_for_agent,
)
from muster.wire import (
    AgentEvents,
    ArtifactQuery,
    ArtifactReply,
    CommandBatch,
    CommandPoll,
    CommandReports,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    Join,
    Joined,
    LogChunk,
    LogChunkReply,
    Registration,
    RegistrationReply,
    decode,
    encode,
)

log = structlog.get_logger()

_BATCHES_MAX = 1000
_SUPERSEDED_INTERVALS = 3.0


class AmqpLink:
    """A NodeLink and a Lifecycle. `on_open` is called each time the broker was reached.

    A broker does not answer. So a heartbeat's reply is what the control plane has last written to this node, which it
    does when something is to be corrected and else not.
    """

    def __init__(
        self,
        address: BrokerAddress,
        node_id: NodeId,
        clock: Clock,
        rng: Rng,
        *,
        on_open: Callable[[], None] = lambda: None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._on_open = on_open
        self._broker = BrokerConnection(address, self._opened, rng, base_s=backoff_s)
        self._boot_id = ""
        self._waiting: Heartbeat | None = None  # the newest that the broker has not got
        self._told = HeartbeatReply(next_heartbeat_ms=0)
        self._superseded_until_s = 0.0
        self._batches: deque[CommandBatch] = deque(maxlen=_BATCHES_MAX)
        self._arrived = asyncio.Event()

    async def start(self) -> None:
        await self._broker.start()

    async def stop(self) -> None:
        await self._broker.stop()

    # --- the calls ---------------------------------------------------------------------------------------------------

    async def register(self, message: Registration) -> RegistrationReply:
        self._boot_id = message.boot_id
        await self._publish(registration_body(message, self._clock.now_ms()), REGISTRATION, REGISTER_KEY)
        self._told = replace(self._told, known=True)
        return RegistrationReply(node_id=self._node_id, next_heartbeat_ms=round(message.heartbeat_interval_s * 1000))

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        """Hand it to the broker. While the broker is away the newest waits, and goes first when it is back."""
        self._boot_id = message.boot_id
        self._waiting = message
        try:
            await self._send_waiting()
        except UpstreamFailed:
            log.debug("heartbeat_waits", node_id=self._node_id, seq=message.seq)
        interval_ms = round(message.heartbeat_interval_s * 1000)
        if self._told.superseded and self._clock.monotonic_s() > self._superseded_until_s:
            self._told = replace(self._told, superseded=False)
        # What goes through a broker is told at length: others may read it too.
        return replace(self._told, next_heartbeat_ms=interval_ms, takes_packed=False)

    async def report_events(self, message: AgentEvents) -> None:
        await self._publish(encode(message), EVENTS, EVENTS_KEY)

    async def deregister(self, message: Deregistration) -> None:
        self._waiting = None
        await self._publish(deregistration_body(message, self._clock.now_ms()), REGISTRATION, DEREGISTER_KEY)

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        self._boot_id = message.boot_id
        if not self._batches and message.wait_s > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(message.wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return CommandBatch()
        return self._batches.popleft() if self._batches else CommandBatch()

    async def report_commands(self, message: CommandReports) -> None:
        await self._publish(encode(message), EVENTS, REPORTS_KEY)

    async def tell_logs(self, message: LogChunk) -> LogChunkReply:
        raise Forbidden(f"a broker carries no logs: {message.node_id} is to send them to the control plane itself")

    async def find_artifacts(self, _: ArtifactQuery) -> ArtifactReply:
        """Find none: a broker does not answer, and each artifact has a source besides."""
        return ArtifactReply()

    async def join(self, message: Join) -> Joined:
        raise Forbidden(f"a broker carries no tokens: {message.node_id} is to join at the control plane itself")

    # --- the broker --------------------------------------------------------------------------------------------------

    async def _publish(self, body: bytes, exchange: str, key: str) -> None:
        if not await self._broker.publish(body, exchange, key):
            raise UpstreamFailed(f"no queue of a control plane is bound to {exchange} with the key {key!r}")

    async def _send_waiting(self) -> None:
        message = self._waiting
        if message is None:
            return
        body = heartbeat_body(message, self._clock.now_ms())
        await self._broker.publish(body, HEARTBEAT, "", persistent=False)
        if self._waiting is message:  # and not a newer one, that came meanwhile
            self._waiting = None

    async def _opened(self, connection: AbstractConnection) -> list[AbstractChannel]:
        receiving = await connection.channel(publisher_confirms=False)
        queue = await declare_for_agent(receiving, self._node_id)
        await receiving.basic_consume(queue, self._receive, no_ack=True)
        await self._send_waiting()
        self._on_open()
        return [receiving]

    async def _receive(self, message: DeliveredMessage) -> None:
        try:
            letter = decode(message.body, Letter)
        except InvalidInput as error:
            log.warning("letter_not_understood", node_id=self._node_id, error=error.message, field=error.field)
            return
        if letter.boot_id not in {"", self._boot_id}:
            return  # to another agent of this node id, or to an earlier life of this one
        if letter.reply is not None:
            self._told = letter.reply
            if letter.reply.superseded:
                # It is said again with every heartbeat as long as it holds, and then no more.
                held_s = letter.reply.next_heartbeat_ms / 1000 * _SUPERSEDED_INTERVALS
                self._superseded_until_s = self._clock.monotonic_s() + held_s
        if letter.batch is not None:
            self._batches.append(letter.batch)
            self._arrived.set()
