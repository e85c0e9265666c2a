"""When a schedule is due. Times are computed from the schedule alone, so that every control plane finds the same."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct
from msgspec.structs import replace

from muster.domain.schedule import Missed, Schedule
from muster.errors import InvalidInput
from muster.ids import JobId, check_name

MADE_UP_MAX = 100  # of times that were missed
LATE_MS = 60_000  # what is noticed within it was not missed

_ID_CHARS_MAX = 100  # with a time after it, it is a job's id
_EVERY_S = (1.0, 366 * 86_400.0)


class Due(Struct, frozen=True, kw_only=True):
    """The times for which jobs are to be submitted now, and when to look again."""

    times: tuple[int, ...]
    next_at: int | None


def check(schedule: Schedule) -> None:
    """Raise InvalidInput naming the field."""
    check_name(schedule.schedule_id, "schedule_id")
    if len(schedule.schedule_id) > _ID_CHARS_MAX:
        raise InvalidInput(f"schedule_id must have at most {_ID_CHARS_MAX} characters", field="schedule_id")
    if (schedule.cron is None) is (schedule.every_s is None):
        raise InvalidInput("give either cron or every_s", field="cron")
    if schedule.every_s is not None and not _EVERY_S[0] <= schedule.every_s <= _EVERY_S[1]:
        raise InvalidInput(f"every_s must be 1 to {_EVERY_S[1]:.0f}, got {schedule.every_s:g}", field="every_s")
    try:
        ZoneInfo(schedule.time_zone)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        raise _no_zone(schedule) from None
    except KeyError:
        raise _no_zone(schedule) from None
    if schedule.cron is not None:
        if len(schedule.cron.split()) != 5:  # noqa: PLR2004 - minute, hour, day, month, weekday
            raise InvalidInput(
                f"cron must have five fields (minute hour day month weekday), got {schedule.cron!r}", field="cron"
            )
        try:
            next_after(schedule, schedule.created_at)
        except CronSimError as error:
            raise InvalidInput(f"cron {schedule.cron!r} cannot be read: {error}", field="cron") from None


def next_after(schedule: Schedule, after_ms: int) -> int:
    """Return the first time after `after_ms`. There is always one: days that never come are refused."""
    if schedule.every_s is not None:
        every_ms = round(schedule.every_s * 1000)
        done = max(0, after_ms - schedule.created_at) // every_ms
        return schedule.created_at + (done + 1) * every_ms
    return _ms(next(CronSim(schedule.cron or "", _local(schedule, after_ms))))


def next_times(schedule: Schedule, after_ms: int, count: int) -> list[int]:
    times: list[int] = []
    while len(times) < count:
        times.append(next_after(schedule, times[-1] if times else after_ms))
    return times


def due(schedule: Schedule, now_ms: int) -> Due:
    """Decide for which of the times since the last look jobs are to be submitted."""
    first = schedule.next_at
    if schedule.paused or first is None or first > now_ms:
        return Due(times=(), next_at=None if schedule.paused else first)
    following = next_after(schedule, now_ms)
    times = [at for at in _newest(schedule, now_ms, MADE_UP_MAX) if at >= first]
    if schedule.missed is Missed.LAST:
        times = times[-1:]
    elif schedule.missed is Missed.SKIP:
        times = [at for at in times[-1:] if now_ms - at <= LATE_MS]
    return Due(times=tuple(times), next_at=following)


def job_id_at(schedule: Schedule, at_ms: int) -> JobId:
    """Return the id of the job for that time: submitted twice, it is still one job."""
    return JobId(f"{schedule.schedule_id}-{at_ms}")


def restarted(schedule: Schedule, now_ms: int) -> Schedule:
    """Return it with its next time from now on: new, changed or resumed, it makes up for nothing."""
    return replace(schedule, next_at=None if schedule.paused else next_after(schedule, now_ms))


def _newest(schedule: Schedule, now_ms: int, count: int) -> list[int]:
    """Return the newest times until now, the oldest first."""
    if schedule.every_s is not None:
        every_ms = round(schedule.every_s * 1000)
        last = max(0, now_ms - schedule.created_at) // every_ms
        return [schedule.created_at + n * every_ms for n in range(max(1, last - count + 1), last + 1)]
    after = _local(schedule, now_ms) + timedelta(seconds=1)  # backwards, it begins before the time it is given
    return [_ms(at) for at in islice(CronSim(schedule.cron or "", after, reverse=True), count)][::-1]


def _local(schedule: Schedule, at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(schedule.time_zone))


def _ms(at: datetime) -> int:
    return round(at.astimezone(UTC).timestamp() * 1000)


def _no_zone(schedule: Schedule) -> InvalidInput:
    return InvalidInput(
        f"time_zone must be a name like Europe/Berlin or UTC, got {schedule.time_zone!r}", field="time_zone"
    )
