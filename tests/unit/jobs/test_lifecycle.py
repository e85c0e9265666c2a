from itertools import product

import pytest

from muster.domain.job import ACTIVE, TERMINAL, JobStatus, Settlement
from muster.errors import InvalidTransition
from muster.ids import JobId
from muster.jobs.lifecycle import TABLE, JobSignal, next_status, signal_of

JOB = JobId("job-1")


@pytest.mark.parametrize(("status", "signal"), list(product(JobStatus, JobSignal)))
def test_every_pair_has_its_next_status_or_an_error_that_names_job_and_status(status, signal):
    if (status, signal) in TABLE:
        assert next_status(JOB, status, signal) is TABLE[status, signal]
        return
    with pytest.raises(InvalidTransition) as refused:
        next_status(JOB, status, signal)
    assert refused.value.message.startswith(f"job job-1 is {status}: ")
    assert refused.value.data == {"job_id": JOB, "status": status, "signal": signal}


def test_who_asks_in_vain_is_told_what_could_be_asked():
    with pytest.raises(
        InvalidTransition, match="job job-1 is completed: only a failed, timed-out or cancelled job can be"
    ):
        next_status(JOB, JobStatus.COMPLETED, JobSignal.REVIVED)
    with pytest.raises(InvalidTransition, match="job job-1 is cancelled: it has ended, nothing is left to cancel"):
        next_status(JOB, JobStatus.CANCELLED, JobSignal.CANCELLED)
    with pytest.raises(InvalidTransition, match="job job-1 is completed: claimed cannot follow"):
        next_status(JOB, JobStatus.COMPLETED, JobSignal.CLAIMED)


def test_an_ended_job_only_comes_back_by_being_revived():
    assert {signal for status, signal in TABLE if status in TERMINAL} == {JobSignal.REVIVED}


def test_a_late_result_does_not_overwrite_a_cancellation():
    with pytest.raises(InvalidTransition):
        next_status(JOB, JobStatus.CANCELLED, JobSignal.COMPLETED)


def test_a_completed_job_is_never_run_again():
    assert not [signal for status, signal in TABLE if status is JobStatus.COMPLETED]


def test_unworkable_is_a_view_and_no_state():
    assert JobStatus.UNWORKABLE not in {status for status, _ in TABLE} | set(TABLE.values())


def test_every_stored_status_can_be_reached():
    assert set(TABLE.values()) == set(JobStatus) - {JobStatus.UNWORKABLE}


@pytest.mark.parametrize(
    ("fields", "signal"),
    [
        ({"status": JobStatus.COMPLETED}, JobSignal.COMPLETED),
        ({"status": JobStatus.FAILED}, JobSignal.FAILED_FOR_GOOD),
        ({"status": JobStatus.TIMEOUT}, JobSignal.TIMED_OUT),
        ({"status": JobStatus.CANCELLED}, JobSignal.CANCELLED),
        ({"status": JobStatus.PENDING, "counts": False}, JobSignal.RETURNED),
        ({"status": JobStatus.PENDING}, JobSignal.LEASE_LOST),
        ({"status": JobStatus.PENDING, "retry_at_ms": 5}, JobSignal.RETRY_SCHEDULED),
    ],
)
def test_a_settlement_says_its_signal_and_leads_to_its_own_status(fields, signal):
    settlement = Settlement(job_id=JOB, attempt=1, **fields)
    assert signal_of(settlement) is signal
    for status in ACTIVE:
        assert next_status(JOB, status, signal) is settlement.status
