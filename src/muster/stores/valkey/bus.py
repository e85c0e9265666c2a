from collections.abc import AsyncIterator

from redis.exceptions import RedisError

from muster.errors import StoreUnavailable
from muster.stores.valkey.server import Server, unavailable

_QUIET_S = 15.0  # after so long without a message the connection is tried


class ValkeyBus:
    """A Bus over the server's publish and subscribe.

    A subscription ends with StoreUnavailable when its connection is lost: messages may have been missed, and only the
    subscriber knows what to do about a gap before it subscribes again.
    """

    def __init__(self, server: Server, *, quiet_s: float = _QUIET_S) -> None:
        self._server = server
        self._quiet_s = quiet_s

    async def publish(self, topic: str, data: bytes) -> None:
        await self._server.execute("PUBLISH", self._channel(topic), data)

    async def subscribe(self, topic: str) -> AsyncIterator[bytes]:
        async with self._server.pubsub() as pubsub:
            try:
                await pubsub.subscribe(self._channel(topic))
                asked = False
                while True:
                    message = await pubsub.get_message(timeout=self._quiet_s)
                    if message is None:
                        if asked:
                            raise StoreUnavailable(f"the store has been silent for {2 * self._quiet_s:g} s")
                        await pubsub.ping()
                    asked = message is None
                    if message is not None and message["type"] == "message":
                        yield message["data"]
            except (RedisError, OSError) as error:
                raise unavailable(error) from None

    def _channel(self, topic: str) -> str:
        return self._server.key(f"bus:{topic}")
