import asyncio
from collections.abc import AsyncIterator, Callable

from muster.errors import StoreUnavailable
from muster.stores.valkey.connection import Connection, ConnectionLost
from muster.stores.valkey.server import Server

_QUIET_S = 15.0  # after so long without a message the connection is tried
_WAITING_MAX = 10_000  # a subscriber that does not read loses the oldest: nothing is kept for anybody


class ValkeyBus:
    """A Bus over the server's publish and subscribe.

    A subscription ends with StoreUnavailable when its connection is lost: messages may have been missed, and only the
    subscriber knows what to do about a gap before it subscribes again.
    """

    def __init__(self, server: Server, *, quiet_s: float = _QUIET_S) -> None:
        self._server = server
        self._quiet_s = quiet_s

    async def publish(self, topic: str, data: bytes) -> None:
        await self._server.execute("PUBLISH", self._server.key(f"bus:{topic}"), data)

    async def announce(self, channel: str, data: bytes) -> None:
        """Publish for programs of others, under exactly that name."""
        await self._server.execute("PUBLISH", channel, data)

    async def subscribe(self, topic: str, ready: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        messages: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_MAX)

        def hand_on(data: bytes | None) -> None:
            if messages.full():
                messages.get_nowait()
            messages.put_nowait(data)

        connection = await self._server.subscribe(f"bus:{topic}", hand_on)
        watch = asyncio.create_task(self._watch(connection), name="bus-watch")
        watch.add_done_callback(lambda _: hand_on(None))
        try:
            if ready is not None:
                ready()
            while (data := await messages.get()) is not None:
                yield data
            raise StoreUnavailable(f"the subscription to {topic} has ended: {watch.result()}")
        finally:
            watch.cancel()
            connection.close()

    async def _watch(self, connection: Connection) -> str:
        """Return why it is over, once it is."""
        while True:
            try:
                async with asyncio.timeout(self._quiet_s):
                    await connection.lost.wait()
            except TimeoutError:
                if not await self._answers(connection):
                    return f"no answer within {self._quiet_s:g} s"
            else:
                return "the connection was lost"

    async def _answers(self, connection: Connection) -> bool:
        try:
            async with asyncio.timeout(self._quiet_s):
                await connection.call("PING")
        except (TimeoutError, ConnectionLost):
            return False
        return True
