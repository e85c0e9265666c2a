"""Recurring jobs: kept for people, submitted when they are due by whoever leads."""

import structlog
from msgspec.structs import replace

from muster.clock import Clock
from muster.control.jobs.service import JobService
from muster.domain.schedule import Schedule
from muster.errors import Conflict, MusterError, QueueFull, ScheduleNotFound
from muster.jobs import schedules as rules
from muster.ports import ScheduleStore

log = structlog.get_logger()

SCHEDULES_MAX = 10_000
_DUE_AT_ONCE = 500


class ScheduleService:
    def __init__(self, store: ScheduleStore, jobs: JobService, clock: Clock) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock

    # --- for people --------------------------------------------------------------------------------------------------

    async def all(self) -> list[Schedule]:
        return await self._store.all()

    async def get(self, schedule_id: str) -> Schedule:
        found = await self._store.get(schedule_id)
        if found is None:
            raise ScheduleNotFound(f"there is no schedule {schedule_id!r}", field="schedule_id")
        return found

    async def put(self, schedule: Schedule) -> Schedule:
        """Make or change a schedule; its times count from now on. InvalidInput names the field."""
        now_ms = self._clock.now_ms()
        known = await self._store.get(schedule.schedule_id)
        if known is None and len(await self._store.all()) >= SCHEDULES_MAX:
            raise Conflict(f"there are {SCHEDULES_MAX} schedules already; delete some", field="schedule_id")
        schedule = replace(schedule, created_at=now_ms)
        rules.check(schedule)
        self._jobs.check(replace(schedule.job, job_id=rules.job_id_at(schedule, now_ms)))
        await self._store.save(rules.restarted(schedule, now_ms))
        return await self.get(schedule.schedule_id)

    async def set_paused(self, schedule_id: str, *, paused: bool) -> Schedule:
        changed = replace(await self.get(schedule_id), paused=paused)
        await self._store.save(rules.restarted(changed, self._clock.now_ms()))
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        if not await self._store.delete(schedule_id):
            raise ScheduleNotFound(f"there is no schedule {schedule_id!r}", field="schedule_id")

    # --- for the sweep -----------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Submit what is due. Done twice, or by two at once, it submits each job once: its id has its time in it."""
        now_ms = self._clock.now_ms()
        for schedule in await self._store.due(now_ms, _DUE_AT_ONCE):
            await self._submit(schedule, now_ms)

    async def _submit(self, schedule: Schedule, now_ms: int) -> None:
        due = rules.due(schedule, now_ms)
        specs = [replace(schedule.job, job_id=rules.job_id_at(schedule, at)) for at in due.times]
        try:
            await self._jobs.submit(specs)
        except QueueFull as error:  # of its customer; the next sweep tries again
            log.warning("schedule_delayed", schedule_id=schedule.schedule_id, error=error.message)
            return
        except MusterError as error:
            if error.retriable:
                raise
            # It was checked when it was made: what it needs is gone since. The next time may be better.
            log.error("schedule_refused", schedule_id=schedule.schedule_id, error=error.message)  # noqa: TRY400 - a sentence
        last = due.times[-1] if due.times else None
        await self._store.advance(schedule, due.next_at, last, specs[-1].job_id if specs else None)
