"""What every store holds to, whatever keeps the data."""

import re
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from muster.batches.lines import batch_of
from muster.domain.event import Event
from muster.domain.job import JobError, JobSpec, JobStatus, Settlement
from muster.domain.webhook import Delivery
from muster.errors import InvalidInput, QueueFull
from muster.ids import JobId, SessionId, WorkerId, check_name
from muster.jobs.lifecycle import JobSignal
from muster.webhooks.wanted import order

WAKE_TOPIC = "wake"  # the bus topic under which a class id says that there is work for it

AVOID_S = 30.0  # how long a retry leaves out the worker whose attempt failed, if others can run it
CLASS_KEEP_S = 3600.0  # how long a capability class is remembered after its last session
RESULT_BYTES_MAX = 1_048_576
EVENT_LOG_ENTRIES_MAX = 100_000
COMMANDS_ENDED_MAX = 5_000
RATE_MINUTES = 5  # over which the rates of a queue are taken, the current one among them
RETRY_AFTER_S = 5.0  # what a customer is told of whom too many jobs wait
WEBHOOK_HISTORY_MAX = 200  # ended deliveries that are kept of each webhook
EVENT_IDS_MAX = 50  # the log is capped by entries, so each must be small; base.lua says the same

# The event that tells how an attempt ended.
EVENT_KINDS: dict[JobSignal, str] = {
    JobSignal.COMPLETED: "job_completed",
    JobSignal.FAILED_FOR_GOOD: "job_failed",
    JobSignal.RETRY_SCHEDULED: "job_retrying",
    JobSignal.LEASE_LOST: "job_retrying",
    JobSignal.RETURNED: "job_returned",
    JobSignal.TIMED_OUT: "job_timeout",
    JobSignal.CANCELLED: "job_cancelled",
}


DEADLINE_ERROR = JobError(
    code="deadline_exceeded",
    message="the job had not ended within its deadline_s; give it more time or a higher priority",
    retriable=False,
)


def told_workflow(spec: JobSpec) -> str | None:
    """Return the workflow of a job if its end is told; that of a batch is told by the batch's own events."""
    return None if spec.workflow_id == batch_of(spec.job_id) else spec.workflow_id


def workflow_ended(name: str, not_completed: int, now_ms: int) -> Event:
    """Return the event of a workflow without open jobs; lib/workflows.lua says the same."""
    kind = "workflow_failed" if not_completed else "workflow_completed"
    return Event(kind=kind, key=name, at_ms=now_ms, data={"not_completed": not_completed})


def dependency_error(job_id: JobId, status: JobStatus) -> JobError:
    """Return the error of a job that depended on another one; lib/waits.lua says the same."""
    message = f"job {job_id}, which it depends on, ended as {status}"
    return JobError(code="dependency_failed", message=message, retriable=False)


def no_such_dependency(missing: Sequence[JobId]) -> InvalidInput:
    names = ", ".join(missing[:5])
    return InvalidInput(
        f"depends_on names jobs that do not exist: {names}; submit them first", field="depends_on", missing=missing[:5]
    )


def too_many_wait(customer: str, waiting: int) -> QueueFull:
    return QueueFull(
        f"{waiting} jobs of the customer {customer} wait already, which is as many as may (waiting_max)",
        field="customer_id",
        retry_after_s=RETRY_AFTER_S,
    )


_LOG_ID = re.compile(r"\d{1,19}(-\d{1,19})?\Z")


def check_log_id(value: str) -> str:
    """Accept an id of the event log, also one that is long gone; "0" is before the first."""
    if not _LOG_ID.match(value):
        raise InvalidInput(f"after must be an id of the event log, got {value!r}", field="after")
    return value


def delivery_order(delivery: Delivery) -> tuple[tuple[int, ...], str]:
    """Return what deliveries are sorted by: their event's place in the log."""
    return order(delivery.event_id), delivery.delivery_id


def check_session(session_id: SessionId, worker_id: WorkerId) -> None:
    check_name(session_id, "session_id")
    check_name(worker_id, "worker_id")


def bounded(settlement: Settlement, result_bytes_max: int) -> Settlement:
    """Return the settlement, or a failure in its place when its result is too large to keep."""
    size = len(settlement.result) if isinstance(settlement.result, Raw) else 0
    if size <= result_bytes_max:
        return settlement
    message = f"the result has {size} bytes, {result_bytes_max} are kept; return a reference to large data"
    error = JobError(code="result_too_large", message=message, retriable=False)
    return msgspec.structs.replace(
        settlement, status=JobStatus.FAILED, result=UNSET, error=error, retry_at_ms=None, avoid_worker=None
    )
