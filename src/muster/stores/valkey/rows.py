"""What scripts take and return, and the structs that it stands for."""

from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from muster.domain.job import (
    ClaimedJob,
    Job,
    JobError,
    JobSpec,
    JobState,
    JobStatus,
    Lease,
    Need,
    Progress,
    Settlement,
)
from muster.ids import SessionId, WorkerId
from muster.jobs import lifecycle, matching, order
from muster.stores import rules

_encode = msgspec.json.Encoder().encode
_need = msgspec.json.Decoder(Need)
_spec = msgspec.json.Decoder(JobSpec)
_error = msgspec.json.Decoder(JobError)
_progress = msgspec.json.Decoder(Progress)


def submit_args(spec: JobSpec) -> tuple[Any, ...]:
    """Return what `submit.lua` takes for one job, the signature first and the specification last."""
    return (
        matching.signature(spec.need),
        _score_without_place(order.order_priority(spec)),
        round(spec.timeout_s * 1000),
        spec.job_id,
        _rare_of(spec),
        _encode(spec),
    )


def is_plain(spec: JobSpec) -> bool:
    """Tell whether it may take the short way: it has nothing of what few jobs have."""
    return (
        spec.workflow_id is None
        and spec.workflow_priority is None
        and spec.customer_id is None
        and spec.run_at is None
        and spec.deadline_s is None
        and not spec.depends_on
    )


def kind_of(need: bytes, timeout_s: float, priority: int) -> str:
    """Return what the short way of `submit.lua` takes for all plain jobs that are alike; the need as JSON."""
    return f"{round(timeout_s * 1000)}|{matching.signature(_need.decode(need))}|{_score_without_place(priority)}"


@cache
def _score_without_place(priority: int) -> int:
    return order.score(priority, 0)


def _rare_of(spec: JobSpec) -> str:
    """Return what few jobs have, "" for all others: each argument costs the server."""
    if is_plain(spec):
        return ""
    workflow = "" if spec.workflow_id is None else digest_of(spec.workflow_id)
    deadline = "" if spec.deadline_s is None else round(spec.deadline_s * 1000)
    told = rules.told_workflow(spec) or ""
    return f"{workflow}|{customer_of(spec)}|{spec.run_at or ''}|{deadline}|{needs_of(spec)}|{told}"


def customer_of(spec: JobSpec) -> str:
    return "" if spec.customer_id is None else digest_of(spec.customer_id)


def digest_of(name: str) -> str:
    """Return what stands for the name of a workflow or a customer: it may be long and hold any character."""
    return sha256(name.encode()).hexdigest()[:16]


def needs_of(spec: JobSpec) -> str:
    """Return what a job waits for, as `lib/waits.lua` reads it."""
    return f"{spec.on_failure} {' '.join(spec.depends_on)}" if spec.depends_on else ""


def settlement_args(settlements: Sequence[Settlement]) -> list[Any]:
    """Return what `lib/attempts.lua` reads. Success, by far the most frequent, is said in few words."""
    args: list[Any] = []
    for settlement in settlements:
        result = bytes(settlement.result) if isinstance(settlement.result, Raw) else b""
        args += (settlement.job_id, settlement.attempt, settlement.status.value)
        if settlement.status is JobStatus.COMPLETED:
            args.append(result)
            continue
        error = settlement.error
        args += (
            rules.EVENT_KINDS[lifecycle.signal_of(settlement)],
            int(settlement.counts),
            settlement.retry_at_ms or 0,
            settlement.avoid_worker or "",
            result,
            b"" if error is None else _encode(error),
            "-" if error is None else error.code,
        )
    return args


def spec_of(blob: bytes) -> JobSpec:
    return _spec.decode(blob.split(b"|", 6)[6])


def claimed_of(reply: Sequence[Any]) -> Iterator[ClaimedJob]:
    for at in range(0, len(reply), 3):
        yield ClaimedJob(spec=spec_of(reply[at]), attempt=reply[at + 1], deadline_ms=reply[at + 2])


def lease_of(row: Sequence[Any]) -> Lease:
    blob, attempt, retries, worker, session, expired = row
    return Lease(
        spec=spec_of(blob),
        attempt=int(attempt),
        retry_count=int(retries),
        worker_id=WorkerId(worker.decode()),
        session_id=SessionId(session.decode()),
        expired=expired.decode(),
    )


def job_of(row: Sequence[Any]) -> Job:
    blob, state, error, progress, result, unmet = row
    return Job(
        spec=spec_of(blob),
        state=msgspec.structs.replace(
            JobState() if state is None else _state_of(state.decode()),
            progress=None if progress is None else _progress_of(progress),
            result=UNSET if result is None else Raw(result),
            error=None if error is None else _error.decode(error),
            waiting_for=0 if unmet is None else int(unmet.rpartition(b"|")[2]),
        ),
    )


def _state_of(text: str) -> JobState:
    """Read what `lib/states.lua` writes."""
    status, attempt, session, worker, retries, started, _, due, avoid, _, _, ended = text.split("|")
    waits = status == JobStatus.PENDING  # then worker and session are those of the attempt before
    return JobState(
        status=JobStatus(status),
        attempt=int(attempt),
        retry_count=int(retries),
        worker_id=None if waits or not worker else WorkerId(worker),
        session_id=None if waits or not session else SessionId(session),
        avoid_worker=WorkerId(avoid) if avoid else None,
        next_attempt_at=int(due) if due else None,
        started_at=int(started) if started else None,
        completed_at=int(ended) if ended else None,
    )


def _progress_of(stored: bytes) -> Progress:
    at_ms, _, body = stored.partition(b"|")
    return msgspec.structs.replace(_progress.decode(body), at_ms=int(at_ms))
