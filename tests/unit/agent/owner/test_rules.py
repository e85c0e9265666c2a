"""When a machine is its owner's."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from muster.agent.owner.rules import OwnerRules, OwnerWatch, Seen, parse_hours
from muster.domain.gpu import Gpu, GpuOwner
from muster.errors import InvalidInput

MONDAY_NOON = datetime.fromisoformat("2026-11-23T12:00:00")


def seen(*programs: str, gpus: tuple[Gpu, ...] = (), now: datetime = MONDAY_NOON) -> Seen:
    return Seen(programs=programs, gpus=gpus, now=now)


def busy(name: str = "render", percent: float | None = 90.0, **more: Any) -> tuple[Gpu, ...]:
    return (Gpu(index=0, owners=(GpuOwner(name=name, utilization_percent=percent, **more),)),)


def test_a_listed_program_has_the_machine_at_once_and_for_a_while_after():
    watch = OwnerWatch(OwnerRules(processes=("Blender",), return_after_s=60.0))
    assert watch.see(seen("bash"), 0.0) is None
    assert watch.see(seen("bash", "blender"), 1.0) == "Blender"
    assert watch.see(seen("bash"), 2.0) == "Blender", "it may start again in a moment"
    assert watch.see(seen("bash"), 60.9) == "Blender"
    assert watch.see(seen("bash"), 61.0) is None


def test_the_one_that_runs_is_named():
    watch = OwnerWatch(OwnerRules(processes=("a", "b")))
    assert watch.see(seen("a", "b"), 0.0) == "a"
    assert watch.see(seen("b"), 1.0) == "b"


def test_a_gpu_that_others_keep_busy_shows_somebody_and_a_peak_does_not():
    watch = OwnerWatch(OwnerRules(gpu_busy_percent=50.0, return_after_s=5.0))
    assert watch.see(seen(gpus=busy()), 0.0) is None
    assert watch.see(seen(gpus=busy(percent=10.0)), 9.0) is None
    assert watch.see(seen(gpus=busy()), 10.0) is None
    assert watch.see(seen(gpus=busy()), 20.0) == "render on the GPU"
    assert watch.see(seen(gpus=()), 25.0) is None


@pytest.mark.parametrize("gpus", [busy(service=True), busy(percent=None), (Gpu(index=0),)])
def test_our_own_services_and_what_is_not_known_show_nobody(gpus: tuple[Gpu, ...]):
    watch = OwnerWatch(OwnerRules(gpu_busy_percent=50.0))
    assert watch.see(seen(gpus=gpus), 0.0) is None
    assert watch.see(seen(gpus=gpus), 100.0) is None


@pytest.mark.parametrize(
    ("hours", "at", "its"),
    [
        ("09:00-17:30", "2026-11-22T09:00", True),
        ("09:00-17:30", "2026-11-22T17:30", False),
        ("Mon-Fri 09:00-17:30", "2026-11-23T10:00", True),
        ("Mon-Fri 09:00-17:30", "2026-11-22T10:00", False),  # a Sunday
        ("Sat-Mon 09:00-17:30", "2026-11-23T10:00", True),
        ("sun 09:00-17:30", "2026-11-22T10:00", True),
        ("22:00-06:00", "2026-11-23T23:00", True),
        ("22:00-06:00", "2026-11-23T05:59", True),
        ("22:00-06:00", "2026-11-23T06:00", False),
        ("Fri 22:00-06:00", "2026-11-28T05:00", True),  # a Saturday
        ("Fri 22:00-06:00", "2026-11-27T05:00", False),
    ],
)
def test_hours_are_the_owners(hours: str, at: str, *, its: bool):
    watch = OwnerWatch(OwnerRules(hours=(hours,)))
    expected = f"its owner ({hours})" if its else None
    assert watch.see(seen(now=datetime.fromisoformat(at)), 0.0) == expected


@pytest.mark.parametrize("text", ["always", "Mon-Foo 09:00-10:00", "25:00-26:00", "9-17"])
def test_what_is_no_hour_is_refused(text: str):
    with pytest.raises(InvalidInput, match=r"hours|clock"):
        parse_hours(text)


def test_the_day_before_counts_for_the_night():
    hours = parse_hours("22:00-06:00")
    night = datetime.fromisoformat("2026-11-23T22:00:00")
    assert all(hours.has(night + timedelta(hours=hour)) for hour in range(8))
    assert not hours.has(night + timedelta(hours=8))
