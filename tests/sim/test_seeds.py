"""A hundred fleets, each with its own misfortunes: every rule holds in all of them."""

import os
import subprocess
import sys

import pytest

from muster.sim.report import render
from muster.sim.scenario import calm, large_fleet
from muster.sim.world import run
from tests.sim.worlds import small


@pytest.mark.parametrize("seed", range(100))
def test_every_rule_holds_whatever_goes_wrong(seed: int) -> None:
    report = run(small(seed))
    assert report.ok, render(report)
    assert sum(report.jobs.values()) == 100
    assert set(report.jobs) <= {"completed", "failed", "timeout", "cancelled"}


def test_every_kind_of_fault_strikes() -> None:
    struck = run(small(1)).faults.keys() | run(small(2)).faults.keys()
    assert struck >= {
        "control plane restarts",
        "control planes cut off",
        "jobs cancelled",
        "jobs revived",
        "messages cut",
        "messages doubled",
        "messages late",
        "messages lost",
        "node crashes",
        "node cuts",
        "node stops",
        "nodes drained",
        "store outages",
    }


def test_the_same_seed_goes_the_same_way_and_another_does_not() -> None:
    assert run(small(5)) == run(small(5))
    assert run(small(5)).trace_hash != run(small(6)).trace_hash


def test_a_seed_goes_the_same_way_in_another_process() -> None:
    code = "from muster.sim.world import run; from tests.sim.worlds import small; print(run(small(7)).trace_hash)"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == run(small(7)).trace_hash


def test_in_a_calm_world_nothing_goes_wrong_but_jobs_themselves() -> None:
    report = run(calm(1))
    assert report.ok, render(report)
    assert not any(
        kind.startswith(("message", "node", "control", "store")) for kind in report.faults if kind != "nodes drained"
    )


def test_a_large_fleet_beats_for_an_hour() -> None:
    report = run(large_fleet(1, nodes=300))
    assert report.ok, render(report)
    assert report.faults["heartbeats"] > 100_000
