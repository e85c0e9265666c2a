from collections.abc import Sequence
from typing import Any

import msgspec

from muster.domain.event import Event, LoggedEvent
from muster.stores import rules
from muster.stores.valkey.server import Server

_EVENTS_PER_CALL = 500
_LAST_OF_A_MS = 10**18  # an id is a time and a number within that, which stays far below
_NUMBER_MAX = 2**64 - 1  # of an entry within its millisecond

_event = msgspec.json.Decoder(Event)


class ValkeyLog:
    """An EventLog: one capped stream, to which the scripts of the job store append as well.

    An entry holds one event or two. So that each has a place of its own, the second number of an event's id is twice
    that of its entry, and one more for the last event in it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._key = server.key("log")

    async def append(self, events: Sequence[Event]) -> list[str]:
        ids: list[str] = []
        for start in range(0, len(events), _EVENTS_PER_CALL):
            bodies = map(msgspec.json.encode, events[start : start + _EVENTS_PER_CALL])
            ids += [_last_id(entry_id) for entry_id in await self._server.run("append", *bodies)]
        return ids

    async def read(self, after: str, limit: int, wait_s: float = 0.0) -> list[LoggedEvent]:
        command: tuple[Any, ...] = ("XREAD", "COUNT", limit)
        streams = ("STREAMS", self._key, _entry_before(rules.check_log_id(after)))
        if wait_s > 0:
            found = await self._server.wait(wait_s, *command, "BLOCK", max(1, round(wait_s * 1000)), *streams)
        else:
            found = await self._server.execute(*command, *streams)
        entries = found[0][1] if found else ()
        events = [event for entry_id, fields in entries for event in _events_of(entry_id, fields)]
        return [event for event in events if event.id != after][:limit]

    async def since(self, at_ms: int) -> str:
        return f"{max(0, at_ms - 1)}-{_LAST_OF_A_MS}"

    async def newest_id(self) -> str:
        entries = await self._server.execute("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return _last_id(entries[0][0]) if entries else "0"

    async def oldest_id(self) -> str:
        entries = await self._server.execute("XRANGE", self._key, "-", "+", "COUNT", 1)
        return _events_of(*entries[0])[0].id if entries else "0"


def _last_id(entry_id: bytes) -> str:
    """Return the id of an entry's last event."""
    at_ms, _, number = entry_id.decode().partition("-")
    return f"{at_ms}-{2 * int(number) + 1}"


def _entry_before(after: str) -> str:
    """Return the id of the last entry all of whose events are at `after` or before it."""
    at_ms, dash, place = after.partition("-")
    if not dash or int(place) % 2:
        return f"{at_ms}-{int(place or 0) // 2}"
    if int(place):
        return f"{at_ms}-{int(place) // 2 - 1}"
    return f"{int(at_ms) - 1}-{_NUMBER_MAX}" if int(at_ms) else "0"


def _events_of(entry_id: bytes, fields: Sequence[bytes]) -> list[LoggedEvent]:
    last_id = _last_id(entry_id)
    if fields[0] == b"event":
        return [LoggedEvent(id=last_id, event=_event.decode(fields[1]))]
    logged_ms, _, place = last_id.partition("-")
    last = LoggedEvent(id=last_id, event=_job_event(fields[-1].decode(), logged_ms))
    if len(fields) == 2:  # noqa: PLR2004 - one name and its value
        return [last]
    first = LoggedEvent(id=f"{logged_ms}-{int(place) - 1}", event=_job_event(fields[1].decode(), logged_ms))
    return [first, last]


def _job_event(lines: str, logged_ms: str) -> Event:
    """Read what `tell` in base.lua wrote: it is told so often that JSON would cost the server too much."""
    kind, at_ms, worker, names, attempts, codes = lines.split("\n")
    ids = tuple(names.split(" "))
    data: dict[str, Any] = {}
    if worker:
        data = {"worker_id": worker, "attempts": [int(attempt) for attempt in attempts.split(" ")]}
    if codes:
        data["codes"] = [None if code == "-" else code for code in codes.split(" ")]
    return Event(kind=kind, key=ids[0], at_ms=int(at_ms or logged_ms), data=data, ids=ids if len(ids) > 1 else ())
