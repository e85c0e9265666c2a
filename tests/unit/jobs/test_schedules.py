"""When a schedule is due: cron with time zones, intervals, and what was missed."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from muster.domain.schedule import Missed, Schedule
from muster.errors import InvalidInput
from muster.jobs.schedules import MADE_UP_MAX, check, due, job_id_at, next_after, next_times, restarted
from tests.unit.jobs.makers import spec


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


MONDAY = ms("2026-11-23T00:00:00")


def schedule(**fields: Any) -> Schedule:
    known: dict[str, Any] = {"schedule_id": "nightly", "job": spec(), "created_at": MONDAY}
    return Schedule(**(known | fields))


def test_a_cron_time_comes_in_its_time_zone():
    nightly = schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    assert next_after(nightly, MONDAY) == ms("2026-11-23T02:30:00", "Europe/Berlin")
    assert next_times(nightly, MONDAY, 2)[1] == ms("2026-11-24T02:30:00", "Europe/Berlin")


def test_the_time_itself_is_not_after_it():
    hourly = schedule(cron="0 * * * *")
    at = ms("2026-11-23T05:00:00")
    assert next_after(hourly, at) == ms("2026-11-23T06:00:00")
    assert next_after(hourly, at - 1) == at


def test_a_day_with_an_hour_too_few_or_too_many_has_its_time_once():
    nightly = schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    for day in ("2027-03-28", "2026-10-25"):  # the clock goes forward, and back
        before = ms(f"{day}T00:00:00", "Europe/Berlin")
        following = ms(f"{day}T23:00:00", "Europe/Berlin")
        assert len([at for at in next_times(nightly, before, 2) if at < following]) == 1


def test_an_interval_counts_from_the_making_of_the_schedule():
    often = schedule(every_s=90)
    assert next_times(often, MONDAY, 3) == [MONDAY + 90_000, MONDAY + 180_000, MONDAY + 270_000]
    assert next_after(often, MONDAY + 100_000) == MONDAY + 180_000


def test_nothing_is_due_before_its_time_or_while_it_is_paused():
    hourly = schedule(cron="0 * * * *", next_at=MONDAY + 3_600_000)
    assert due(hourly, MONDAY).times == ()
    assert due(hourly, MONDAY).next_at == MONDAY + 3_600_000
    paused = schedule(cron="0 * * * *", paused=True, next_at=MONDAY)
    assert (due(paused, MONDAY + 1).times, due(paused, MONDAY + 1).next_at) == ((), None)


@pytest.mark.parametrize("rule", [{"cron": "0 * * * *"}, {"every_s": 3600}])
@pytest.mark.parametrize(("missed", "hours"), [(Missed.LAST, [5]), (Missed.ALL, [1, 2, 3, 4, 5]), (Missed.SKIP, [])])
def test_what_was_missed_is_made_up_for_as_the_schedule_says(rule, missed, hours):
    hour = 3_600_000
    late = schedule(**rule, missed=missed, next_at=MONDAY + hour)
    found = due(late, MONDAY + 5 * hour + 120_000)
    assert found.times == tuple(MONDAY + n * hour for n in hours)
    assert found.next_at == MONDAY + 6 * hour
    in_time = due(late, MONDAY + hour + 500)
    assert in_time.times == (MONDAY + hour,)


def test_a_long_absence_is_made_up_for_within_bounds():
    often = schedule(cron="* * * * *", missed=Missed.ALL, next_at=MONDAY + 60_000)
    times = due(often, MONDAY + 7 * 86_400_000).times
    assert len(times) == MADE_UP_MAX
    assert times[-1] == MONDAY + 7 * 86_400_000


def test_a_job_has_the_same_id_whoever_submits_it():
    assert job_id_at(schedule(every_s=60), MONDAY) == f"nightly-{MONDAY}"


def test_a_schedule_that_is_resumed_makes_up_for_nothing():
    resumed = restarted(schedule(every_s=60, next_at=MONDAY), MONDAY + 3_630_000)
    assert resumed.next_at == MONDAY + 3_660_000
    assert restarted(schedule(every_s=60, paused=True), MONDAY).next_at is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "cron"),
        ({"cron": "* * * * *", "every_s": 5}, "cron"),
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 0 * * * *"}, "cron"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "0 0 31 4,6 *"}, "cron"),
        ({"every_s": 0.5}, "every_s"),
        ({"every_s": 60, "time_zone": "Mars/Base"}, "time_zone"),
        ({"every_s": 60, "time_zone": "../etc/passwd"}, "time_zone"),
        ({"every_s": 60, "time_zone": ""}, "time_zone"),
        ({"every_s": 60, "schedule_id": "two words"}, "schedule_id"),
        ({"every_s": 60, "schedule_id": "x" * 101}, "schedule_id"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_named(fields, field):
    with pytest.raises(InvalidInput) as caught:
        check(schedule(**fields))
    assert caught.value.field == field
    check(schedule(every_s=60))
    check(schedule(cron="*/5 9-17 * * MON-FRI", time_zone="America/New_York"))


def test_a_day_that_never_comes_is_refused():
    with pytest.raises(InvalidInput) as refused:
        check(schedule(cron="0 0 31 4,6 *"))
    assert refused.value.field == "cron"
