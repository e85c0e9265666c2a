"""The life of a job: one table; what it lacks cannot happen.

UNWORKABLE is how a pending job is shown, never a state.
"""

from enum import StrEnum

from muster.domain.job import JobStatus, Settlement
from muster.errors import InvalidTransition
from muster.ids import JobId


class JobSignal(StrEnum):
    CLAIMED = "claimed"
    PROGRESSED = "progressed"
    COMPLETED = "completed"
    FAILED_FOR_GOOD = "failed_for_good"  # not worth a try, or no try is left
    RETRY_SCHEDULED = "retry_scheduled"  # the attempt failed; another one when its time has come
    LEASE_LOST = "lease_lost"  # the worker was not heard; another attempt at once
    RETURNED = "returned"  # the worker stopped politely; the attempt does not count
    TIMED_OUT = "timed_out"  # the last attempt or the whole job took too long
    CANCELLED = "cancelled"
    REVIVED = "revived"


TABLE: dict[tuple[JobStatus, JobSignal], JobStatus] = {
    (JobStatus.PENDING, JobSignal.CLAIMED): JobStatus.ASSIGNED,
    (JobStatus.PENDING, JobSignal.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.PENDING, JobSignal.TIMED_OUT): JobStatus.TIMEOUT,
    (JobStatus.PENDING, JobSignal.FAILED_FOR_GOOD): JobStatus.FAILED,
    (JobStatus.ASSIGNED, JobSignal.PROGRESSED): JobStatus.IN_PROGRESS,
    (JobStatus.ASSIGNED, JobSignal.COMPLETED): JobStatus.COMPLETED,
    (JobStatus.ASSIGNED, JobSignal.FAILED_FOR_GOOD): JobStatus.FAILED,
    (JobStatus.ASSIGNED, JobSignal.RETRY_SCHEDULED): JobStatus.PENDING,
    (JobStatus.ASSIGNED, JobSignal.LEASE_LOST): JobStatus.PENDING,
    (JobStatus.ASSIGNED, JobSignal.RETURNED): JobStatus.PENDING,
    (JobStatus.ASSIGNED, JobSignal.TIMED_OUT): JobStatus.TIMEOUT,
    (JobStatus.ASSIGNED, JobSignal.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.IN_PROGRESS, JobSignal.PROGRESSED): JobStatus.IN_PROGRESS,
    (JobStatus.IN_PROGRESS, JobSignal.COMPLETED): JobStatus.COMPLETED,
    (JobStatus.IN_PROGRESS, JobSignal.FAILED_FOR_GOOD): JobStatus.FAILED,
    (JobStatus.IN_PROGRESS, JobSignal.RETRY_SCHEDULED): JobStatus.PENDING,
    (JobStatus.IN_PROGRESS, JobSignal.LEASE_LOST): JobStatus.PENDING,
    (JobStatus.IN_PROGRESS, JobSignal.RETURNED): JobStatus.PENDING,
    (JobStatus.IN_PROGRESS, JobSignal.TIMED_OUT): JobStatus.TIMEOUT,
    (JobStatus.IN_PROGRESS, JobSignal.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.FAILED, JobSignal.REVIVED): JobStatus.PENDING,
    (JobStatus.TIMEOUT, JobSignal.REVIVED): JobStatus.PENDING,
    (JobStatus.CANCELLED, JobSignal.REVIVED): JobStatus.PENDING,
}

_ENDINGS = {
    JobStatus.COMPLETED: JobSignal.COMPLETED,
    JobStatus.FAILED: JobSignal.FAILED_FOR_GOOD,
    JobStatus.TIMEOUT: JobSignal.TIMED_OUT,
    JobStatus.CANCELLED: JobSignal.CANCELLED,
}

# What people ask for is refused in words that say what could be asked instead.
_REFUSALS = {
    JobSignal.CANCELLED: "it has ended, nothing is left to cancel",
    JobSignal.REVIVED: "only a failed, timed-out or cancelled job can be retried",
}


def next_status(job_id: JobId, status: JobStatus, signal: JobSignal) -> JobStatus:
    try:
        return TABLE[status, signal]
    except KeyError:
        why = _REFUSALS.get(signal, f"{signal} cannot follow")
        raise InvalidTransition(
            f"job {job_id} is {status}: {why}", job_id=job_id, status=status, signal=signal
        ) from None


def signal_of(settlement: Settlement) -> JobSignal:
    """Return what a settlement says about the attempt that it ends."""
    if settlement.status is not JobStatus.PENDING:
        return _ENDINGS[settlement.status]
    if not settlement.counts:
        return JobSignal.RETURNED
    return JobSignal.LEASE_LOST if settlement.retry_at_ms is None else JobSignal.RETRY_SCHEDULED
