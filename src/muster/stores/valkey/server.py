"""The way to a Valkey or Redis server: functions and commands with a deadline, errors in our words."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from muster.clock import Clock
from muster.errors import SetupError, StoreUnavailable
from muster.stores.valkey.address import parse_address
from muster.stores.valkey.connection import Connection, OnMessage
from muster.stores.valkey.library import library

_BACKOFF_S = 0.01
_BACKOFF_S_MAX = 0.25
_IDLE_MAX = 16

# First words of refusals that say how the server is, not what we did wrong.
_NOT_YET = ("LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN")
_NOT_US = ("NOAUTH", "WRONGPASS", "NOPERM")
_NO_WRITES = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")

# Of the keys that lua/lib/base.lua lists: it grows when an earlier version cannot read what this one stores.
_LAYOUT = b"4"
_TAKEN_OVER = b"3"  # a store of this layout is of ours from now on

_Call = Callable[[], Awaitable[Any]]


class Server:
    """One server under one prefix. Lost connections are made again; a call gives up after `call_timeout_s`."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        clock: Clock | None,
        call_timeout_s: float,
        event_log_entries_max: int,
        avoid_s: float,
    ) -> None:
        self._address = parse_address(url)
        self._prefix = f"{{{prefix}}}:"  # a hash tag: all keys in one slot of a cluster
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._settings = f"{event_log_entries_max}|{round(avoid_s * 1000)}"
        self._shared: Connection | None = None
        self._connecting = asyncio.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def key(self, name: str) -> str:
        return self._prefix + name

    @property
    def now_ms(self) -> int:
        """Return the time that functions are given: 0, the server's own clock, unless we were given one."""
        return 0 if self._clock is None else self._clock.now_ms()

    def run(self, name: str, *args: Any) -> Awaitable[Any]:
        """Call one of our functions."""
        return self.execute(*self._call_of(name, self.now_ms, args))

    def packed_call(self, name: str, now_ms: int, *args: Any, more: int) -> bytes:
        """Return the front of a call of one of our functions, to be followed by as many `more` arguments."""
        words = self._call_of(name, now_ms, args)
        packed: bytes = hiredis.pack_command(words)
        return packed.replace(b"*%d\r\n" % len(words), b"*%d\r\n" % (len(words) + more), 1)

    def _call_of(self, name: str, now_ms: int, args: Sequence[Any]) -> tuple[Any, ...]:
        return ("FCALL", f"{library().name}_{name}", 1, self._prefix, f"{now_ms}|{self._settings}", *args)

    async def prepare(self) -> None:
        """Make sure that the server answers and can run our functions."""
        try:
            await self.run("counts")
        except hiredis.ReplyError as error:
            if "unknown command" not in str(error):
                raise
            raise SetupError(
                f"the store at {self._address.shown} is too old: it has no functions",
                next_step="use Valkey, or Redis from 7.0 on; or leave MUSTER_VALKEY_URL out for the embedded one",
            ) from None
        found = await self.execute("SET", self.key("layout"), _LAYOUT, "NX", "GET")
        if found == _TAKEN_OVER:
            await self.execute("SET", self.key("layout"), _LAYOUT)
        elif found not in (None, _LAYOUT):
            raise SetupError(
                f"the store at {self._address.shown} was written by another version of Muster "
                f"(its keys have layout {found.decode()}, this one reads {_LAYOUT.decode()})",
                next_step="run that version, or choose another place with --data-dir or MUSTER_VALKEY_URL",
            )

    def execute(self, *command: Any) -> Awaitable[Any]:
        return self.send(hiredis.pack_command(command))

    async def send(self, packed: bytes) -> Any:
        """Run a command that is packed already."""
        connection = self._shared
        if connection is None or not connection.ready:
            return await self._send(self._call_timeout_s, packed)
        started_s = asyncio.get_running_loop().time()
        try:
            return await connection.send_now(packed)  # which the connection ends in time
        except OSError:
            pass
        except hiredis.ReplyError as error:
            await self._mend(error)
        left_s = self._call_timeout_s - (asyncio.get_running_loop().time() - started_s)
        if left_s <= 0:
            raise self._unanswered(self._call_timeout_s, None)
        return await self._send(left_s, packed)

    async def _send(self, timeout_s: float, packed: bytes) -> Any:
        async def call() -> Any:
            connection = self._shared
            if connection is None or connection.lost.is_set():
                connection = await self._connect()
            return await connection.send(packed)

        return await self._until_answered(timeout_s, call)

    async def wait(self, wait_s: float, *command: Any) -> Any:
        """Run a command that blocks in the server for up to `wait_s`, on a connection of its own."""

        async def call() -> Any:
            connection = self._idle.pop() if self._idle else await Connection.open(self._address)
            try:
                reply = await connection.call(*command)
            except BaseException:
                connection.close()
                raise
            if len(self._idle) < _IDLE_MAX and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
            return reply

        return await self._until_answered(wait_s + self._call_timeout_s, call)

    async def subscribe(self, channel: str, on_message: OnMessage) -> Connection:
        """Return a connection that hands on what is published, until it is lost."""

        async def call() -> Connection:
            connection = await Connection.open(self._address, on_message)
            try:
                await connection.call("SUBSCRIBE", self.key(channel))
            except BaseException:
                connection.close()
                raise
            return connection

        connection: Connection = await self._until_answered(self._call_timeout_s, call)
        return connection

    def close(self) -> None:
        self._closed = True
        for connection in (self._shared, *self._idle):
            if connection is not None:
                connection.close()
        self._idle.clear()

    async def _connect(self) -> Connection:
        async with self._connecting:
            if self._closed:
                raise StoreUnavailable("the store was closed")
            if self._shared is None or self._shared.lost.is_set():
                self._shared = await Connection.open(self._address)
                self._shared.end_after_silence(self._call_timeout_s)
            return self._shared

    async def _until_answered(self, timeout_s: float, call: _Call) -> Any:
        """Try until there is an answer or the time is over; all our calls can be repeated."""
        pause_s = _BACKOFF_S
        problem: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await call()
                    except OSError as error:
                        problem = error
                    except hiredis.ReplyError as error:
                        await self._mend(error)
                        problem = error
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _BACKOFF_S_MAX)
        except TimeoutError:
            if problem is None and self._shared is not None:
                self._shared.close()  # it may be one of those that never answer again
            raise self._unanswered(timeout_s, problem) from None

    async def _mend(self, error: hiredis.ReplyError) -> None:
        """Return if it is worth another try: a server that does not know our functions is told them."""
        if "Function not found" in str(error):
            await self.execute("FUNCTION", "LOAD", "REPLACE", library().text)
        else:
            _check(error)

    def _unanswered(self, timeout_s: float, problem: Exception | None) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store at {self._address.shown} did not answer within {timeout_s:.3g} s: {problem or 'no reply'}"
        )


def _check(error: hiredis.ReplyError) -> None:
    """Return if it is worth another try."""
    text = str(error)
    if text.startswith(_NOT_US):
        raise StoreUnavailable(f"the store refuses us: {text}") from None
    if text.startswith(_NO_WRITES):
        raise StoreUnavailable(f"the store takes no writes: {text}") from None
    if not text.startswith(_NOT_YET):
        raise error  # a fault of ours: it must be seen
