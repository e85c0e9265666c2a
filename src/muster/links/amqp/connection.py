"""One connection to the broker, made again for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import structlog
from aiormq import Connection, exceptions, spec
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.base import Base

from muster.clock import Rng
from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.links.amqp.address import BrokerAddress
from muster.links.amqp.explain import explain, words
from muster.links.amqp.topology import declare

log = structlog.get_logger()

T = TypeVar("T")

BACKOFF_S = 5.0
_BACKOFF_STEPS_MAX = 6
_JITTER = 0.2
_CONNECT_TIMEOUT_S = 15.0
_CLOSE_TIMEOUT_S = 2.0
_CLOSE_CHANNEL_S = 0.5
_PERSISTENT = 2
_TRANSIENT = 1
_LOST = "see whether the broker runs and can be reached; nothing needs a restart here"

# It tells each failed attempt several times over, with tracebacks; what matters of it is told here, once.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

Opened = Callable[[AbstractConnection], Awaitable[list[AbstractChannel]]]


def backoff_s(attempt: int, rng: Rng, base_s: float = BACKOFF_S) -> float:
    """Return the wait before the next attempt, counted from 1; chance only shortens it."""
    return base_s * min(attempt, _BACKOFF_STEPS_MAX) * (1 - _JITTER * rng.random())


class BrokerConnection:
    """A Lifecycle. `opened` prepares each new connection and returns the channels without which it is of no use.

    The start does not wait for the broker: nobody is kept from his other work because it is away.
    """

    def __init__(
        self,
        address: BrokerAddress,
        opened: Opened,
        rng: Rng,
        *,
        base_s: float = BACKOFF_S,
        publish_timeout_s: float = 5.0,
    ) -> None:
        self.up = asyncio.Event()
        self.connections = 0
        self._address = address
        self.problem = f"{address} was not reached yet"
        self.next_step = "RABBITMQ_URL says where it is"
        self._changed_s: float | None = None  # by the loop's clock, when it was reached or lost
        self._connection: AbstractConnection | None = None
        self._opened = opened
        self._rng = rng
        self._base_s = base_s
        self._publish_timeout_s = publish_timeout_s
        self._ended: asyncio.Future[str] | None = None  # with the reason; one for each connection
        self._sending: AbstractChannel | None = None
        self._attempt = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="broker")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def give_up(self, reason: str) -> None:
        """End this connection and make a new one."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)
            self.problem, self.next_step = reason, _LOST
            self._sending = None

    async def publish(
        self,
        body: bytes,
        exchange: str,
        key: str,
        *,
        persistent: bool = True,
        headers: dict[str, Any] | None = None,
    ) -> bool:
        """Return once the broker has it; False when no queue is bound to that key. UpstreamFailed when it is away."""
        channel = self._sending
        if channel is None:
            raise UpstreamFailed(f"{self.problem}; {self.next_step}")
        properties = spec.Basic.Properties(
            delivery_mode=_PERSISTENT if persistent else _TRANSIENT, content_type="application/json", headers=headers
        )
        try:
            await _own_cancellation_only(
                channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=self._publish_timeout_s,
                )
            )
        except exceptions.PublishError:
            return False
        except exceptions.DeliveryError:
            raise UpstreamFailed(f"{self._address} refused a message: the queue behind {exchange} is full") from None
        except TimeoutError:
            # Nothing is heard of a broker that stands still, or of a network that swallows everything.
            silence = f"{self._address} did not confirm a message within {self._publish_timeout_s:g} s"
            self.give_up(silence)
            raise UpstreamTimeout(silence) from None
        except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError) as error:
            raise UpstreamFailed(f"{self._address} went away: {words(error)}") from None
        return True

    @property
    def product(self) -> str | None:
        """What the broker calls itself; None while it is away."""
        told = self._connection.server_properties if isinstance(self._connection, Connection) else {}
        return " ".join(str(told[name]) for name in ("product", "version") if told.get(name)) or None

    @property
    def unchanged_s(self) -> float:
        """For how long it has been up, or away."""
        return 0.0 if self._changed_s is None else asyncio.get_running_loop().time() - self._changed_s

    async def ask(self, question: Callable[[AbstractChannel], Awaitable[T]], timeout_s: float) -> T:
        """Ask on a channel of its own, which a refusal ends. UpstreamFailed when there is no answer."""
        connection = self._connection
        if connection is None:
            raise UpstreamFailed(f"{self.problem}; {self.next_step}")
        channel: AbstractChannel | None = None
        try:
            async with asyncio.timeout(timeout_s):
                channel = await _own_cancellation_only(connection.channel(publisher_confirms=False))
                answer = await _own_cancellation_only(question(channel))
        except TimeoutError:
            raise UpstreamTimeout(f"{self._address} did not answer within {timeout_s:g} s") from None
        except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError) as error:
            raise UpstreamFailed(f"{self._address} did not answer: {words(error)}") from None
        finally:
            if channel is not None:
                await _close_channel(channel)
        return answer

    def _turn(self) -> None:
        self._changed_s = asyncio.get_running_loop().time()

    async def _run(self) -> None:
        self._turn()
        while True:
            problem, next_step = await self._once()
            self._attempt += 1
            delay_s = backoff_s(self._attempt, self._rng, self._base_s)
            self.problem, self.next_step = problem, next_step
            log.warning(
                "broker_away",
                broker=str(self._address),
                error=problem,
                next_step=next_step,
                attempt=self._attempt,
                retry_in_s=round(delay_s, 1),
            )
            await asyncio.sleep(delay_s)

    async def _once(self) -> tuple[str, str]:
        """Connect and stay; return why that ended, and what a person can do."""
        connection = Connection(self._address.url, context=self._address.tls)
        self._ended = ended = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await _own_cancellation_only(connection.connect())
                sending = await _own_cancellation_only(connection.channel())
                await _own_cancellation_only(declare(sending))
                self._sending = sending
                channels = await _own_cancellation_only(self._opened(connection))
            for watched in (connection, sending, *channels):
                cast("Base", watched).closing.add_done_callback(self._closed)
            self._connection = connection
            self._turn()
            self.up.set()
            self.connections += 1
            log.info("broker_connected", broker=str(self._address), attempts=self._attempt)
            self._attempt = 0
            return await ended, _LOST
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt must come
            return explain(error, self._address)
        finally:
            if self.up.is_set():
                self._turn()
            self.up.clear()
            self._ended = self._sending = self._connection = None
            await _close(connection)

    def _closed(self, closing: "asyncio.Future[object]") -> None:
        error = None if closing.cancelled() else closing.exception()
        self.give_up(f"the connection to {self._address} ended: {words(error) if error else 'closed'}")


async def _close_channel(channel: AbstractChannel) -> None:
    """Close it, unless it is closed or nothing is heard of the broker: then it goes with its connection."""
    try:
        async with asyncio.timeout(_CLOSE_CHANNEL_S):
            await _own_cancellation_only(channel.close())
    except (TimeoutError, exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError) as error:
        log.debug("channel_not_closed", error=words(error))


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await _own_cancellation_only(connection.close(None))
    except (TimeoutError, ConnectionError):
        return  # a broker that does not answer; aiormq ends what is left of it by itself


async def _own_cancellation_only(call: Awaitable[T]) -> T:
    """Await; a call that ends because the connection does looks like a cancellation of ours, and is none."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionResetError("the connection ended during a call") from None
