from collections.abc import Sequence
from typing import Any

import msgspec

from muster.domain.event import Event, LoggedEvent
from muster.stores import rules
from muster.stores.valkey.server import Server

_EVENTS_PER_CALL = 500
_LAST_OF_A_MS = 10**18  # an entry's id is its time and a number within that, which stays far below

_event = msgspec.json.Decoder(Event)


class ValkeyLog:
    """An EventLog: one capped stream, to which the scripts of the job store append as well."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._key = server.key("log")

    async def append(self, events: Sequence[Event]) -> list[str]:
        ids: list[str] = []
        for start in range(0, len(events), _EVENTS_PER_CALL):
            bodies = map(msgspec.json.encode, events[start : start + _EVENTS_PER_CALL])
            ids += [entry_id.decode() for entry_id in await self._server.run("append", *bodies)]
        return ids

    async def read(self, after: str, limit: int, wait_s: float = 0.0) -> list[LoggedEvent]:
        command: tuple[Any, ...] = ("XREAD", "COUNT", limit)
        streams = ("STREAMS", self._key, rules.check_log_id(after))
        if wait_s > 0:
            found = await self._server.wait(wait_s, *command, "BLOCK", max(1, round(wait_s * 1000)), *streams)
        else:
            found = await self._server.execute(*command, *streams)
        entries = found[0][1] if found else ()
        return [LoggedEvent(id=entry_id.decode(), event=_event_of(fields)) for entry_id, fields in entries]

    async def since(self, at_ms: int) -> str:
        return f"{max(0, at_ms - 1)}-{_LAST_OF_A_MS}"

    async def newest_id(self) -> str:
        return _first_id(await self._server.execute("XREVRANGE", self._key, "+", "-", "COUNT", 1))

    async def oldest_id(self) -> str:
        return _first_id(await self._server.execute("XRANGE", self._key, "-", "+", "COUNT", 1))


def _event_of(fields: Sequence[bytes]) -> Event:
    name, value = fields
    return _event.decode(value) if name == b"event" else _job_event(value.decode())


def _job_event(lines: str) -> Event:
    """Read what `tell` in base.lua wrote: it is told so often that JSON would cost the server too much."""
    kind, at_ms, worker, names, attempts, codes = lines.split("\n")
    ids = tuple(names.split(" "))
    data: dict[str, Any] = {}
    if worker:
        data = {"worker_id": worker, "attempts": [int(attempt) for attempt in attempts.split(" ")]}
    if codes:
        data["codes"] = [None if code == "-" else code for code in codes.split(" ")]
    return Event(kind=kind, key=ids[0], at_ms=int(at_ms), data=data, ids=ids if len(ids) > 1 else ())


def _first_id(entries: Sequence[Sequence[Any]]) -> str:
    return entries[0][0].decode() if entries else "0"
