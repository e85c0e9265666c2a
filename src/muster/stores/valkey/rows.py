"""What scripts take and return, and the structs that it stands for."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, TypeVar

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
    Progress,
    Settlement,
)
from muster.ids import SessionId, WorkerId
from muster.jobs import lifecycle, matching, order
from muster.stores import rules

_Id = TypeVar("_Id")

_encode = msgspec.json.Encoder().encode
_spec = msgspec.json.Decoder(JobSpec)
_error = msgspec.json.Decoder(JobError)
_progress = msgspec.json.Decoder(Progress)


def submit_args(spec: JobSpec) -> tuple[str, int, str, int, str, bytes]:
    """Return signature, score without the sequence, workflow, timeout, id, specification."""
    # A workflow's id may hold any character and be long: its digest serves as well.
    workflow = "" if spec.workflow_id is None else sha256(spec.workflow_id.encode()).hexdigest()[:16]
    return (
        matching.signature(spec.need),
        order.score(order.order_priority(spec), 0),
        workflow,
        round(spec.timeout_s * 1000),
        spec.job_id,
        _encode(spec),
    )


def settlement_args(settlements: Sequence[Settlement]) -> Iterator[Any]:
    for settlement in settlements:
        yield settlement.job_id
        yield settlement.attempt
        yield str(settlement.status)
        yield rules.EVENT_KINDS[lifecycle.signal_of(settlement)]
        yield int(settlement.counts)
        yield settlement.retry_at_ms or 0
        yield settlement.avoid_worker or ""
        yield bytes(settlement.result) if isinstance(settlement.result, Raw) else b""
        yield b"" if settlement.error is None else _encode(settlement.error)
        yield "" if settlement.error is None else settlement.error.code


def spec_of(blob: bytes) -> JobSpec:
    return _spec.decode(blob.split(b"|", 4)[4])


def claimed_of(reply: Sequence[Any]) -> Iterator[ClaimedJob]:
    for at in range(0, len(reply), 3):
        yield ClaimedJob(spec=spec_of(reply[at]), attempt=reply[at + 1], deadline_ms=reply[at + 2])


def lease_of(row: Sequence[Any]) -> Lease:
    blob, attempt, retries, worker, session, expired = row
    return Lease(
        spec=spec_of(blob),
        attempt=int(attempt),
        retry_count=int(retries or 0),
        worker_id=WorkerId(worker.decode()),
        session_id=SessionId(session.decode()),
        expired=expired.decode(),
    )


def job_of(row: Sequence[Any]) -> Job:
    blob, flat, error, progress, result = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    status = JobStatus(fields[b"status"].decode()) if fields else JobStatus.PENDING
    waits = status is JobStatus.PENDING  # then worker and session are those of the attempt before
    return Job(
        spec=spec_of(blob),
        state=JobState(
            status=status,
            attempt=int(fields.get(b"attempt", 0)),
            retry_count=int(fields.get(b"retries", 0)),
            worker_id=None if waits else _text(fields.get(b"worker"), WorkerId),
            session_id=None if waits else _text(fields.get(b"session"), SessionId),
            avoid_worker=_text(fields.get(b"avoid"), WorkerId),
            next_attempt_at=_number(fields.get(b"due")),
            started_at=_number(fields.get(b"started")),
            completed_at=_number(fields.get(b"ended")),
            progress=None if progress is None else _progress_of(progress),
            result=UNSET if result is None else Raw(result),
            error=None if error is None else _error.decode(error),
        ),
    )


def _progress_of(stored: bytes) -> Progress:
    at_ms, _, body = stored.partition(b"|")
    return msgspec.structs.replace(_progress.decode(body), at_ms=int(at_ms))


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)


def _text(value: bytes | None, kind: Callable[[str], _Id]) -> _Id | None:
    return None if value is None else kind(value.decode())
