"""The gateway benchmark works: real programs, real load, each for a moment; how fast they are is not looked at."""

import shutil

import pytest
from bench.gateway import Sizes, run
from bench.gateway_peers import ALONE, PROGRAMS

_A_MOMENT = Sizes(seconds=0.1, warm_s=0.2, connections=2, streams=5, leaving=5, rounds=1)


@pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator is in C and built on the spot")
def test_every_figure_of_the_gateway_is_measured():
    outcome = run([program for program in PROGRAMS if program.name == ALONE], _A_MOMENT)
    assert outcome.absent == {}
    found = outcome.figures[ALONE]
    assert found.failed == {}
    assert set(found.found) == {
        "requests_per_s",
        "cpu_us_per_request",
        "added_p50_ms",
        "events_per_s",
        "cpu_us_per_event",
        "cpu_us_per_slow_event",
        "delay_p99_ms",
        "memory_mb",
        "let_go_ms",
    }
