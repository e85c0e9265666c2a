"""The fault campaign in short: every kind of fault once, always the same ones. `make faults` is the long form."""

import asyncio
from pathlib import Path

import pytest

from tests.campaign.conduct import Campaign, Plan
from tests.campaign.fleet import Shape
from tests.campaign.schedule import KINDS

SHORT = Plan(
    seed=4,
    jobs=300,
    shape=Shape(planes=2, agents=3, workers=6),
    faults=len(KINDS),
    calm_s=3.0,
    every_s=4.0,
    longest_s=8.0,
)


@pytest.mark.timeout(600)  # most of it is waiting: for faults to come, to end, and for what they left to be done
def test_a_fleet_that_every_kind_of_fault_befalls_loses_no_job_and_ends_none_twice(tmp_path: Path) -> None:
    said: list[str] = []

    report = asyncio.run(Campaign(SHORT, tmp_path, said.append).run())

    assert report.passed, "\n".join([report.text(), *said])
    assert {hit.fault.kind for hit in report.hits} == set(KINDS)
    assert report.accepted == SHORT.jobs + SHORT.faults
    assert report.ends["completed"] > SHORT.jobs / 2
