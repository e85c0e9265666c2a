"""One connection to a server: any number of calls share it, and replies come in their order.

Own code and not a client library: at this place a call costs a third of what it costs there, and the control plane
makes one for every claim. A call that is given up leaves its reply to be dropped when its turn comes, so that nobody
gets the reply of another.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from muster.stores.valkey.address import Address

OnMessage = Callable[[bytes], None]


class ConnectionLost(OSError):
    """The connection ended before the reply came."""


class Connection(asyncio.Protocol):
    """With `on_message`, one that subscribes: messages go there, everything else is a reply."""

    def __init__(self, on_message: OnMessage | None = None) -> None:
        self._on_message = on_message
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._since: deque[float] = deque()  # when each of those calls was made, by the loop's clock
        self._watch: asyncio.TimerHandle | None = None
        self._silence_s_max = math.inf
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()
        self.ready = False  # takes a call right now

    @classmethod
    async def open(cls, address: Address, on_message: OnMessage | None = None) -> "Connection":
        """Connect and log in; OSError or hiredis.ReplyError says why not."""
        connection = cls(on_message)
        if address.path:
            await connection._loop.create_unix_connection(lambda: connection, address.path)
        else:
            context = address.tls_context()
            await connection._loop.create_connection(lambda: connection, address.host, address.port, ssl=context)
        try:
            if address.password:
                await connection.call("AUTH", *filter(None, (address.user, address.password)))
            if address.database:
                await connection.call("SELECT", address.database)
        except BaseException:
            connection.close()
            raise
        return connection

    def end_after_silence(self, silence_s_max: float) -> None:
        """Take it for lost when a call had no reply for so long.

        One timer for all calls: one for each would cost as much as a third of the call.
        """
        self._silence_s_max = silence_s_max

    async def call(self, *command: Any) -> Any:
        """Return the reply; raise hiredis.ReplyError when it is an error, ConnectionLost when none comes any more."""
        return await self.send(hiredis.pack_command(command))

    async def send(self, packed: bytes) -> Any:
        """Do what `call` does with a command that is packed already."""
        if not self._writable.is_set():
            await self._writable.wait()
        if not self.ready:
            raise ConnectionLost("the connection was lost")
        return await self.send_now(packed)

    def send_now(self, packed: bytes) -> asyncio.Future[Any]:
        """Do what `send` does where the connection is ready: no coroutine stands between a caller and the reply."""
        if self._transport is None:
            raise ConnectionLost("the connection was never made")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        self._since.append(self._loop.time())
        if self._watch is None and self._silence_s_max < math.inf:
            self._watch = self._loop.call_later(self._silence_s_max, self._look)
        self._transport.write(packed)
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # streams are all we open; uvloop's are no subclass
        self.ready = True

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError:  # not a server of this kind
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()
        self.ready = False

    def resume_writing(self) -> None:
        self._writable.set()
        self.ready = not self.lost.is_set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.ready = False
        self._writable.set()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._since.clear()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionLost(f"the connection was lost{f': {exc}' if exc else ''}"))

    def _look(self) -> None:
        """Look whether the oldest call has waited for too long; it may be a server that never answers again."""
        self._watch = None
        if not self._since:
            return
        left_s = self._since[0] + self._silence_s_max - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            self.close()

    def _take(self, reply: Any) -> None:
        if self._on_message is not None and isinstance(reply, list) and reply[0] == b"message":
            self._on_message(reply[2])
            return
        if not self._waiting:
            raise hiredis.ProtocolError("a reply that nobody waits for")
        future = self._waiting.popleft()
        self._since.popleft()
        if future.done():  # given up
            return
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(reply)
        else:
            future.set_result(reply)
