from typing import Any

import msgspec
from msgspec.structs import replace

from muster.domain.schedule import Schedule
from muster.stores.valkey.server import Server

_decode = msgspec.json.Decoder(Schedule).decode


class ValkeySchedules:
    """A ScheduleStore: records as JSON, their next times as a sorted set, their last jobs beside them."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def all(self) -> list[Schedule]:
        names = await self._server.execute("HKEYS", self._server.key("schedules"))
        return await self._read(sorted(name.decode() for name in names))

    async def get(self, schedule_id: str) -> Schedule | None:
        found = await self._read([schedule_id])
        return found[0] if found else None

    async def save(self, schedule: Schedule) -> None:
        body = msgspec.json.encode(replace(schedule, next_at=None, last_at=None, last_job_id=None))
        await self._server.run("save_schedule", schedule.schedule_id, body, _text(schedule.next_at))

    async def delete(self, schedule_id: str) -> bool:
        return bool(await self._server.run("save_schedule", schedule_id, "", ""))

    async def due(self, now_ms: int, limit: int) -> list[Schedule]:
        names = await self._server.execute(
            "ZRANGE", self._server.key("schedules:next"), "-inf", now_ms, "BYSCORE", "LIMIT", 0, limit
        )
        return await self._read([name.decode() for name in names])

    async def advance(
        self, schedule: Schedule, next_at: int | None, last_at: int | None, last_job_id: str | None
    ) -> bool:
        last = "" if last_at is None else f"{last_at}|{last_job_id}"
        return bool(
            await self._server.run(
                "advance_schedule", schedule.schedule_id, _text(schedule.next_at), _text(next_at), last
            )
        )

    async def _read(self, schedule_ids: list[str]) -> list[Schedule]:
        rows = await self._server.run("get_schedules", *schedule_ids) if schedule_ids else []
        return [_schedule_of(row) for row in rows if row is not None]


def _schedule_of(row: list[Any]) -> Schedule:
    body, next_at, last = row
    schedule = replace(_decode(body), next_at=None if next_at is None else int(next_at))
    if last is not None:
        at, _, job_id = last.decode().partition("|")
        schedule = replace(schedule, last_at=int(at), last_job_id=job_id)
    return schedule


def _text(at_ms: int | None) -> str:
    return "" if at_ms is None else str(at_ms)
