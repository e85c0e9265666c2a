import asyncio
from collections.abc import Mapping

import hiredis

from muster.domain.standing import StoreStanding
from muster.errors import StoreUnavailable
from muster.stores.valkey.server import Server

_MB = 1_048_576


class ValkeyProbe:
    """A StoreProbe. None of its commands looks at single keys: a full store is asked as cheaply as an empty one."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def standing(self) -> StoreStanding:
        try:
            ping_ms = await self._ping_ms()
            told = facts_in(await self._server.execute("INFO"))
            keys = await self._server.execute("DBSIZE")
            entries = await self._server.execute("XLEN", self._server.key("log"))
        except hiredis.ReplyError as error:
            raise StoreUnavailable(f"the store does not say how it is: {error}") from None
        return standing_of(told, ping_ms=ping_ms, keys=keys, log_entries=entries)

    async def _ping_ms(self) -> float:
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        await self._server.execute("PING")
        return round(1000 * (loop.time() - asked_s), 2)


def facts_in(info: bytes) -> dict[str, str]:
    """Read what INFO answers: a `name:value` in each line, and headings."""
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def standing_of(told: Mapping[str, str], *, ping_ms: float, keys: int, log_entries: int) -> StoreStanding:
    def number(name: str) -> int | None:
        value = told.get(name, "")
        return int(value) if value.isdigit() else None

    def megabytes(name: str) -> float | None:
        value = number(name)
        return round(value / _MB, 1) if value else None

    is_valkey = "valkey_version" in told
    replica = told.get("role") == "slave"
    uptime_s = number("uptime_in_seconds")
    return StoreStanding(
        product="valkey" if is_valkey else "redis",
        version=told.get("valkey_version") or told.get("redis_version"),
        ping_ms=ping_ms,
        uptime_s=uptime_s,
        memory_mb=megabytes("used_memory"),
        limit_mb=megabytes("maxmemory"),
        clients=number("connected_clients"),
        ops_per_s=number("instantaneous_ops_per_sec"),
        keys=keys,
        log_entries=log_entries,
        append_only={"1": True, "0": False}.get(told.get("aof_enabled", "")),
        append_error=_append_error(told),
        saved_at_ms=_saved_at_ms(number("rdb_last_save_time"), number("server_time_usec"), uptime_s),
        role="replica" if replica else "primary" if "role" in told else None,
        replicas=number("connected_slaves"),
        primary_up=told.get("master_link_status") == "up" if replica else None,
    )


def _saved_at_ms(saved_s: int | None, now_us: int | None, uptime_s: int | None) -> int | None:
    """Return when the last snapshot was made: a server that made none tells when it was started."""
    if saved_s is None or now_us is None or uptime_s is None:
        return None
    started_s = now_us // 1_000_000 - uptime_s
    return 1000 * saved_s if saved_s > started_s + 1 else None


def _append_error(told: Mapping[str, str]) -> str | None:
    failed = [
        what
        for name, what in (
            ("aof_last_write_status", "the last write to its append-only file failed"),
            ("aof_last_bgrewrite_status", "the last rewrite of its append-only file failed"),
            ("rdb_last_bgsave_status", "the last snapshot failed"),
        )
        if told.get(name, "ok") != "ok"
    ]
    return "; ".join(failed) or None
