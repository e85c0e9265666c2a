"""What every store holds to, whatever keeps the data."""

import re

import msgspec
from msgspec import UNSET, Raw

from muster.domain.job import JobError, JobStatus, Settlement
from muster.domain.webhook import Delivery
from muster.errors import InvalidInput
from muster.ids import SessionId, WorkerId, check_name
from muster.jobs.lifecycle import JobSignal
from muster.webhooks.wanted import order

WAKE_TOPIC = "wake"  # the bus topic under which a class id says that there is work for it

AVOID_S = 30.0  # how long a retry leaves out the worker whose attempt failed, if others can run it
CLASS_KEEP_S = 3600.0  # how long a capability class is remembered after its last session
RESULT_BYTES_MAX = 1_048_576
EVENT_LOG_ENTRIES_MAX = 100_000
COMMANDS_ENDED_MAX = 5_000
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
