"""One queue of the control plane: its messages in order, acknowledged by the batch once they are taken in."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiormq import exceptions
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from muster.errors import InvalidInput, MusterError, ShuttingDown, StoreUnavailable
from muster.links.amqp.explain import words

log = structlog.get_logger()

_PREFETCH = 200  # messages that wait in this process at most
_RETRY_S = 0.5
_RETRY_S_MAX = 10.0

Take = Callable[[str, bytes], Awaitable[None]]  # routing key and body; MusterError says why it was not taken
Inbox = asyncio.Queue[DeliveredMessage]
Refuse = Callable[[str, DeliveredMessage, str], Awaitable[None]]  # queue, message and reason


class Intake:
    """`wait_for_store`: a message that our own store cannot take now is kept, and those behind it at the broker."""

    def __init__(self, queue: str, take: Take, refuse: Refuse, *, wait_for_store: bool) -> None:
        self.queue = queue
        self.received = 0
        self._take = take
        self._refuse = refuse
        self._wait_for_store = wait_for_store
        self._pump: asyncio.Task[None] | None = None
        self._inbox = Inbox()
        self._in_hand = 0

    @property
    def unacked(self) -> int:
        """How many messages the broker still counts as on their way to us."""
        return self._inbox.qsize() + self._in_hand

    async def open(self, connection: AbstractConnection, on_failure: Callable[[str], None]) -> AbstractChannel:
        """Consume on a channel of its own; `on_failure` is told when that cannot go on."""
        await self.close()
        channel = await connection.channel(publisher_confirms=False)
        await channel.basic_qos(prefetch_count=_PREFETCH)
        channel.on_consumer_cancel_callbacks.add(lambda _: on_failure(f"the queue {self.queue} was deleted"))
        self._inbox = inbox = Inbox()  # of this channel alone: a late message of another has another's tag
        self._pump = asyncio.create_task(self._run(channel, inbox, on_failure), name=f"intake {self.queue}")
        await channel.basic_consume(self.queue, inbox.put)
        return channel

    async def close(self) -> None:
        """Stop; what is not acknowledged goes back to the queue with the connection."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
            self._inbox, self._in_hand = Inbox(), 0

    async def _run(self, channel: AbstractChannel, inbox: Inbox, on_failure: Callable[[str], None]) -> None:
        try:
            while True:
                batch = [await inbox.get()]
                while not inbox.empty():
                    batch.append(inbox.get_nowait())
                self._in_hand = len(batch)
                for message in batch:
                    await self._handle(message)
                tag = batch[-1].delivery_tag
                if tag is not None:
                    await channel.basic_ack(tag, multiple=True, wait=False)
                self._in_hand = 0
                await asyncio.sleep(0)  # others have their turn, however much there is
        except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError) as error:
            on_failure(f"the queue {self.queue} cannot be read on: {words(error)}")

    async def _handle(self, message: DeliveredMessage) -> None:
        self.received += 1
        try:
            await self._taken(message.routing_key or "", message.body)
        except InvalidInput as error:
            await self._refuse(self.queue, message, f"{error.field}: {error.message}" if error.field else error.message)
        except MusterError as error:
            log.warning("message_not_taken", queue=self.queue, error=error.message)
        except Exception as error:  # one message that breaks us must not come again and again
            log.exception("message_broke", queue=self.queue)
            await self._refuse(self.queue, message, repr(error))

    async def _taken(self, key: str, body: bytes) -> None:
        delay_s = _RETRY_S
        while True:
            try:
                return await self._take(key, body)
            except (StoreUnavailable, ShuttingDown) as error:
                if not self._wait_for_store:
                    raise
                log.warning("message_waits", queue=self.queue, error=error.message, retry_in_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_S_MAX, 2 * delay_s)
