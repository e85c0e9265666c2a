"""Whatever ends its attempts, a job ends, and in a status that its life allows."""

import random

from hypothesis import given
from hypothesis import strategies as st

from muster.domain.job import ACTIVE, TERMINAL, JobError, JobSpec, JobStatus, Lease, Settlement
from muster.ids import JobId, SessionId, WorkerId
from muster.jobs.lifecycle import next_status, signal_of
from muster.jobs.retry import RetryPolicy, delay_s, settle_failure, settle_lease, settle_returned
from tests.chance import FixedChance

WORKER = WorkerId("gpu-1-worker-0")
NOW_MS = 1_000_000

policies = st.builds(
    RetryPolicy,
    base_s=st.floats(0, 10),
    factor=st.floats(1, 4),
    max_s=st.floats(0, 600),
    jitter=st.floats(0, 1),
)
endings = st.sampled_from(["failure", "session", "deadline", "returned"])


def settle(spec: JobSpec, ending: str, attempt: int, retries: int, policy: RetryPolicy) -> Settlement:
    chance = random.Random(attempt)
    if ending == "returned":
        return settle_returned(spec.job_id, attempt)
    if ending == "failure":
        error = JobError(code="x", message="x")
        return settle_failure(spec, attempt, retries, WORKER, error, policy, NOW_MS, chance)
    lease = Lease(
        spec=spec,
        attempt=attempt,
        retry_count=retries,
        worker_id=WORKER,
        session_id=SessionId("s"),
        expired=ending,
    )
    return settle_lease(lease, policy, NOW_MS, chance)


@given(st.integers(0, 5), policies, st.lists(endings, min_size=20, max_size=20))
def test_a_job_is_tried_once_and_then_just_as_often_as_asked(max_retries, policy, misfortunes):
    spec = JobSpec(job_id=JobId("j"), service_required="s", max_retries=max_retries)
    retries = 0
    for attempt, ending in enumerate([*misfortunes, *["failure"] * (max_retries + 1)], start=1):
        settled = settle(spec, ending, attempt, retries, policy)
        for status in ACTIVE:
            assert next_status(spec.job_id, status, signal_of(settled)) is settled.status
        if settled.status in TERMINAL:
            assert retries == max_retries
            assert ending != "returned"
            return
        assert settled.status is JobStatus.PENDING
        assert settled.retry_at_ms is None or settled.retry_at_ms >= NOW_MS
        retries += settled.counts
    raise AssertionError("it never ended")


@given(policies, st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_and_never_longer_than_its_limit(policy, retry_count, draw):
    assert 0 <= delay_s(policy, retry_count, FixedChance(draw)) <= policy.max_s
