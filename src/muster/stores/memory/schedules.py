from msgspec.structs import replace

from muster.domain.schedule import Schedule


class MemorySchedules:
    """A ScheduleStore."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}

    async def all(self) -> list[Schedule]:
        return [schedule for _, schedule in sorted(self._schedules.items())]

    async def get(self, schedule_id: str) -> Schedule | None:
        return self._schedules.get(schedule_id)

    async def save(self, schedule: Schedule) -> None:
        known = self._schedules.get(schedule.schedule_id, schedule)
        self._schedules[schedule.schedule_id] = replace(schedule, last_at=known.last_at, last_job_id=known.last_job_id)

    async def delete(self, schedule_id: str) -> bool:
        return self._schedules.pop(schedule_id, None) is not None

    async def due(self, now_ms: int, limit: int) -> list[Schedule]:
        found = [
            (schedule.next_at, schedule.schedule_id)
            for schedule in self._schedules.values()
            if schedule.next_at is not None and schedule.next_at <= now_ms
        ]
        return [self._schedules[schedule_id] for _, schedule_id in sorted(found)[:limit]]

    async def advance(
        self, schedule: Schedule, next_at: int | None, last_at: int | None, last_job_id: str | None
    ) -> bool:
        known = self._schedules.get(schedule.schedule_id)
        if known is None or known.next_at != schedule.next_at:
            return False
        if last_at is not None:
            known = replace(known, last_at=last_at, last_job_id=last_job_id)
        self._schedules[schedule.schedule_id] = replace(known, next_at=next_at)
        return True
