"""What becomes of an attempt that ended. `max_retries` is how often a job is tried again after its first attempt."""

from msgspec import Raw, Struct, UnsetType

from muster.clock import Rng
from muster.domain.job import JobError, JobSpec, JobStatus, Lease, Retry, Settlement
from muster.ids import JobId, WorkerId

TIMED_OUT = "timed_out"  # an attempt over its time, whether the worker or the store noticed first
RETRY_AFTER_S_MAX = 3600.0  # a service that asks for more is not waited for so long


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Wait `base_s`, then `factor` times as long each time, `max_s` at most; `jitter` is the share left to chance."""

    base_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0
    jitter: float = 0.25


def policy_of(spec: JobSpec, default: RetryPolicy) -> RetryPolicy:
    """Return the policy for one job: its own wishes before the default."""
    asked = spec.retry or Retry()
    return RetryPolicy(
        base_s=default.base_s if asked.base_s is None else asked.base_s,
        factor=default.factor if asked.factor is None else asked.factor,
        max_s=default.max_s if asked.max_s is None else asked.max_s,
        jitter=default.jitter if asked.jitter is None else asked.jitter,
    )


def is_final(spec: JobSpec, error: JobError) -> bool:
    """Tell whether another attempt is not worth it."""
    return not error.retriable or (spec.retry is not None and error.code in spec.retry.not_on)


def delay_s(policy: RetryPolicy, retry_count: int, rng: Rng) -> float:
    """Return the wait before the next attempt after `retry_count` retries."""
    try:
        longest_s = min(policy.max_s, policy.base_s * policy.factor**retry_count)
    except OverflowError:
        longest_s = policy.max_s
    return longest_s * (1 - policy.jitter * rng.random())  # shorter only: max_s stays the longest wait


def settle_success(job_id: JobId, attempt: int, result: Raw | UnsetType) -> Settlement:
    return Settlement(job_id=job_id, attempt=attempt, status=JobStatus.COMPLETED, result=result)


def settle_returned(job_id: JobId, attempt: int) -> Settlement:
    """Put a job back that its worker gave up politely: at once, for anybody, and the attempt does not count."""
    return Settlement(job_id=job_id, attempt=attempt, status=JobStatus.PENDING, counts=False)


def settle_failure(
    spec: JobSpec,
    attempt: int,
    retry_count: int,
    worker_id: WorkerId,
    error: JobError,
    policy: RetryPolicy,
    now_ms: int,
    rng: Rng,
) -> Settlement:
    if not is_final(spec, error) and retry_count < spec.max_retries:
        told_s = min(error.retry_after_s or 0.0, RETRY_AFTER_S_MAX)
        wait_s = max(told_s, delay_s(policy_of(spec, policy), retry_count, rng))
        return _again(spec.job_id, attempt, worker_id, error, now_ms + round(wait_s * 1000))
    status = JobStatus.TIMEOUT if error.code == TIMED_OUT else JobStatus.FAILED
    return Settlement(job_id=spec.job_id, attempt=attempt, status=status, error=error)


def settle_lease(lease: Lease, policy: RetryPolicy, now_ms: int, rng: Rng) -> Settlement:
    """Decide about an attempt whose worker was not heard, or that took too long."""
    spec = lease.spec
    tries_left = lease.retry_count < spec.max_retries
    if lease.expired == "session":
        error = JobError(code="worker_lost", message=f"worker {lease.worker_id} was not heard any more")
        if tries_left and not is_final(spec, error):  # the fault was not the job's: no reason to wait
            return _again(spec.job_id, lease.attempt, lease.worker_id, error, None)
        return Settlement(job_id=spec.job_id, attempt=lease.attempt, status=JobStatus.FAILED, error=error)
    error = JobError(code=TIMED_OUT, message=f"attempt {lease.attempt} took longer than {spec.timeout_s:g} s")
    if tries_left and not is_final(spec, error):
        wait_s = delay_s(policy_of(spec, policy), lease.retry_count, rng)
        return _again(spec.job_id, lease.attempt, lease.worker_id, error, now_ms + round(wait_s * 1000))
    return Settlement(job_id=spec.job_id, attempt=lease.attempt, status=JobStatus.TIMEOUT, error=error)


def _again(job_id: JobId, attempt: int, avoid: WorkerId, error: JobError, at_ms: int | None) -> Settlement:
    return Settlement(
        job_id=job_id,
        attempt=attempt,
        status=JobStatus.PENDING,
        retry_at_ms=at_ms,
        avoid_worker=avoid,
        error=error,
    )
