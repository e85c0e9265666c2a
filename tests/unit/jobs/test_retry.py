"""What follows an attempt, and the faults of a queue that lost, repeated or starved its failures."""

import pytest
from msgspec import UNSET

from muster.domain.job import JobError, JobStatus, Settlement, encode_result
from muster.ids import JobId
from muster.jobs.retry import (
    TIMED_OUT,
    RetryPolicy,
    delay_s,
    settle_failure,
    settle_lease,
    settle_returned,
    settle_success,
)
from tests.chance import FixedChance
from tests.unit.jobs.makers import WORKER, lease, spec

NOW_MS = 1_000_000
POLICY = RetryPolicy(base_s=1.0, factor=2.0, max_s=60.0, jitter=0.25)
NO_JITTER = FixedChance(0.0)
OUT_OF_MEMORY = JobError(code="out_of_memory", message="CUDA out of memory")
BAD_PROMPT = JobError(code="invalid_input", message="no such node", retriable=False)


def fail(error: JobError = OUT_OF_MEMORY, *, retry_count: int = 0, max_retries: int = 3) -> Settlement:
    wanted = spec(max_retries=max_retries)
    return settle_failure(wanted, retry_count + 1, retry_count, WORKER, error, POLICY, NOW_MS, NO_JITTER)


@pytest.mark.parametrize(("retry_count", "expected_s"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (100, 60)])
def test_the_wait_grows_to_its_limit(retry_count, expected_s):
    assert delay_s(POLICY, retry_count, NO_JITTER) == expected_s


@pytest.mark.parametrize(("told_s", "expected_s"), [(None, 1), (0.5, 1), (30.0, 30), (1e9, 3600)])
def test_a_service_that_says_when_is_not_asked_sooner_but_not_trusted_for_ever(told_s, expected_s):
    busy = JobError(code="upstream_failed", message="busy", retry_after_s=told_s)
    assert fail(busy).retry_at_ms == NOW_MS + expected_s * 1000


def test_jitter_only_shortens_the_wait():
    assert delay_s(POLICY, 6, FixedChance(0.999999)) == pytest.approx(45, abs=0.01)
    assert delay_s(POLICY, 0, FixedChance(0.5)) == pytest.approx(0.875)


def test_lesson_a_failure_is_tried_again_after_a_wait_and_avoids_its_worker():
    assert fail(retry_count=1) == Settlement(
        job_id=JobId("job-1"),
        attempt=2,
        status=JobStatus.PENDING,
        retry_at_ms=NOW_MS + 2000,
        avoid_worker=WORKER,
        error=OUT_OF_MEMORY,
    )


def test_lesson_three_retries_are_four_attempts():
    assert [fail(retry_count=count, max_retries=3).status for count in range(4)] == [
        JobStatus.PENDING,
        JobStatus.PENDING,
        JobStatus.PENDING,
        JobStatus.FAILED,
    ]
    assert fail(max_retries=0).status is JobStatus.FAILED


def test_a_job_that_failed_for_good_keeps_the_words_of_its_last_failure():
    assert fail(retry_count=3).error == OUT_OF_MEMORY


def test_lesson_a_validation_error_is_not_tried_three_times():
    settled = fail(BAD_PROMPT)
    assert (settled.status, settled.error) == (JobStatus.FAILED, BAD_PROMPT)


def test_a_worker_that_stops_politely_fails_nothing():
    assert settle_returned(JobId("job-1"), 2) == Settlement(
        job_id=JobId("job-1"), attempt=2, status=JobStatus.PENDING, counts=False
    )


def test_lesson_a_lost_worker_costs_an_attempt_but_no_wait():
    settled = settle_lease(lease("session", retry_count=1), POLICY, NOW_MS, NO_JITTER)
    assert (settled.status, settled.retry_at_ms, settled.counts) == (JobStatus.PENDING, None, True)
    assert settled.avoid_worker == WORKER
    assert settled.attempt == 2
    assert settled.error == JobError(code="worker_lost", message=f"worker {WORKER} was not heard any more")


def test_a_job_whose_workers_all_died_fails_in_the_end():
    settled = settle_lease(lease("session", retry_count=3), POLICY, NOW_MS, NO_JITTER)
    assert settled.status is JobStatus.FAILED
    assert settled.error
    assert settled.error.code == "worker_lost"


def test_the_time_limit_of_an_attempt_is_enforced_and_waits_like_a_failure():
    settled = settle_lease(lease("deadline", retry_count=1, timeout_s=90), POLICY, NOW_MS, NO_JITTER)
    assert (settled.status, settled.retry_at_ms) == (JobStatus.PENDING, NOW_MS + 2000)
    assert settled.avoid_worker == WORKER
    assert settled.error == JobError(code="timed_out", message="attempt 2 took longer than 90 s")


def test_the_last_attempt_that_takes_too_long_ends_in_timeout():
    settled = settle_lease(lease("deadline", max_retries=0), POLICY, NOW_MS, NO_JITTER)
    assert settled.status is JobStatus.TIMEOUT
    assert settled.error
    assert settled.error.code == "timed_out"


def test_a_success_carries_its_result_if_it_has_one():
    assert settle_success(JobId("job-1"), 3, encode_result({"x": 1})) == Settlement(
        job_id=JobId("job-1"), attempt=3, status=JobStatus.COMPLETED, result=encode_result({"x": 1})
    )
    assert settle_success(JobId("job-1"), 3, UNSET).result is UNSET


def test_a_worker_that_notices_the_time_first_ends_the_job_as_the_store_would():
    late = JobError(code=TIMED_OUT, message="took longer than 5 s")
    assert fail(late, max_retries=0).status is JobStatus.TIMEOUT


def test_a_wait_too_long_for_a_number_is_the_longest_one():
    assert delay_s(RetryPolicy(base_s=1.0, factor=100.0, max_s=60.0, jitter=0.0), 100_000, NO_JITTER) == 60.0
