"""The way to a Valkey or Redis server: scripts and commands with a deadline, errors in our words."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from muster.clock import Clock
from muster.errors import SetupError, StoreUnavailable
from muster.stores.valkey.library import library

_BACKOFF_S = 0.01
_BACKOFF_S_MAX = 0.25
# Refusals that say how the server is, not what we did wrong.
_CONDITIONS = ("MISCONF", "NOAUTH", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "UNKILLABLE", "BUSY")
_SCHEMES = {"valkey://": "redis://", "valkeys://": "rediss://"}


class Server:
    """One server under one prefix. Lost connections are made again; a call gives up after `call_timeout_s`."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        clock: Clock | None,
        call_timeout_s: float,
        connections_max: int,
        event_log_entries_max: int,
        avoid_s: float,
    ) -> None:
        self._prefix = f"{{{prefix}}}:"  # a hash tag: all keys in one slot of a cluster
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._settings = (event_log_entries_max, round(avoid_s * 1000))
        self._calls = _client(url, connections_max, call_timeout_s, read_timeout_s=call_timeout_s)
        self._waits = _client(url, connections_max, call_timeout_s, read_timeout_s=None)

    def key(self, name: str) -> str:
        return self._prefix + name

    async def run(self, name: str, *args: Any) -> Any:
        """Call one of our functions; the server's clock is the time unless we were given one."""
        now_ms = 0 if self._clock is None else self._clock.now_ms()
        call = ("FCALL", f"{library().name}_{name}", 1, self._prefix, now_ms, *self._settings, *args)
        try:
            return await self.execute(*call)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        await self.execute("FUNCTION", "LOAD", "REPLACE", library().text)
        return await self.execute(*call)

    async def execute(self, *command: Any) -> Any:
        return await self._execute(self._calls.execute_command, self._call_timeout_s, *command)

    async def wait(self, wait_s: float, *command: Any) -> Any:
        """Run a command that blocks in the server for up to `wait_s`, apart from the connections of other calls."""
        return await self._execute(self._waits.execute_command, self._call_timeout_s + wait_s, *command)

    def pubsub(self) -> PubSub:
        return self._waits.pubsub()

    async def close(self) -> None:
        await self._calls.aclose()
        await self._waits.aclose()

    async def _execute(self, send: Callable[..., Awaitable[Any]], timeout_s: float, *command: Any) -> Any:
        pause_s = _BACKOFF_S
        problem: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await send(*command)
                    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                        if _is_refusal(error) or _is_refusal(error.__cause__):
                            raise StoreUnavailable(f"the store refuses us: {error}") from None
                        problem = error
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _BACKOFF_S_MAX)
        except TimeoutError:
            raise StoreUnavailable(
                f"the store did not answer within {timeout_s:g} s: {problem or 'no reply'}"
            ) from None
        except (OutOfMemoryError, ReadOnlyError) as error:
            raise StoreUnavailable(f"the store takes no writes: {error}") from None
        except ResponseError as error:
            if str(error).startswith(_CONDITIONS):
                raise StoreUnavailable(f"the store cannot serve: {error}") from None
            raise  # a fault of ours: it must be seen


def unavailable(error: RedisError | OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the connection to the store was lost: {error}")


def _is_refusal(error: BaseException | None) -> bool:
    return isinstance(error, AuthenticationError | AuthorizationError)


def _client(url: str, connections_max: int, call_timeout_s: float, *, read_timeout_s: float | None) -> Redis:
    for ours, theirs in _SCHEMES.items():
        url = url.replace(ours, theirs, 1) if url.startswith(ours) else url
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections_max,
            timeout=call_timeout_s,
            socket_timeout=read_timeout_s,
            socket_connect_timeout=call_timeout_s,
            retry=Retry(NoBackoff(), 0),  # ours is around the call, and knows the last problem
            protocol=2,
        )
    except ValueError as error:
        raise SetupError(f"the store's URL does not fit: {error}", next_step="try valkey://127.0.0.1:6379") from None
    return Redis.from_pool(pool)
