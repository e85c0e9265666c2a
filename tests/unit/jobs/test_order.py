"""The place in line, and the faults of a queue that kept it in a number too small."""

import pytest

from muster.domain.job import JobSpec
from muster.ids import JobId
from muster.jobs.order import (
    PLACE_MAX,
    PRIORITY_MAX,
    STEP,
    next_tag,
    order_priority,
    place_at,
    place_of,
    priority_of,
    score,
)


def test_jobs_submitted_one_after_the_other_never_get_equal_scores():
    assert float(score(50, 1_000_000)) < float(score(50, 1_000_001))


def test_the_last_job_of_a_higher_priority_comes_before_the_first_of_a_lower_one():
    assert score(51, PLACE_MAX) < score(50, 0)


def test_a_retried_job_keeps_its_place_as_its_score_depends_on_nothing_else():
    line = [score(50, 7), score(10, 1), score(50, 9)]
    assert sorted(line) == [score(50, 7), score(50, 9), score(10, 1)]


def test_the_largest_score_is_exact_in_a_double():
    assert int(float(score(0, PLACE_MAX))) == score(0, PLACE_MAX)


@pytest.mark.parametrize("priority", [0, 1, 50, PRIORITY_MAX])
def test_the_priority_can_be_read_back(priority):
    assert priority_of(float(score(priority, PLACE_MAX))) == priority
    assert priority_of(score(priority, 0)) == priority


@pytest.mark.parametrize(("priority", "place"), [(-1, 0), (101, 0), (0, -1), (0, PLACE_MAX + 1)])
def test_a_score_out_of_bounds_is_refused(priority, place):
    with pytest.raises(ValueError, match="must be 0 to"):
        score(priority, place)


def test_a_workflows_priority_wins_over_the_jobs_own():
    job = JobSpec(job_id=JobId("j"), service_required="s", priority=10)
    step = JobSpec(job_id=JobId("j"), service_required="s", priority=10, workflow_priority=0)
    assert order_priority(job) == 10
    assert order_priority(step) == 0


def test_a_place_can_be_read_back():
    assert place_of(float(score(50, 1_234))) == 1_234


def test_a_customer_that_waited_comes_next_and_one_that_did_not_waits_its_turn():
    clock = 500.0
    assert next_tag(clock, last=0.0, weight=1) == clock + STEP
    assert next_tag(clock, last=900.0, weight=1) == 900.0 + STEP
    assert place_at(next_tag(clock, last=0.0, weight=3)) == 533
