"""How a request ended, as a line of the output or the error file."""

from typing import Any

import msgspec
from msgspec import UNSET

from muster.domain.batch import BatchStatus
from muster.domain.job import Job, JobStatus, result_file_of

_NEVER = {
    BatchStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    BatchStatus.CANCELLED: ("batch_cancelled", "This batch was cancelled before this request was executed."),
}
_CANCELLED = ("cancelled", "The job of this request was cancelled.")
_LOST = ("job_lost", "The job of this request was forgotten before its result was fetched.")


def output_line(job_id: str, custom_id: str, job: Job | None, ending: BatchStatus) -> tuple[bytes, bool]:
    """Return the line, and whether it is an answer; what never ran says why by how the batch ended."""
    if job is not None and job.state.status is JobStatus.COMPLETED and job.state.result is not UNSET:
        if (file := result_file_of(job.state.result)) is not None:
            message = f"The answer has {file.bytes} bytes, which no line may have: it is at {file.url}."
            return _line(job_id, custom_id, None, {"code": "result_too_large", "message": message}), False
        response = {"status_code": 200, "request_id": job_id, "body": job.state.result}
        return _line(job_id, custom_id, response, None), True
    error = job.state.error if job is not None else None
    if job is not None and job.state.status is JobStatus.TIMEOUT:
        code, message = "request_timeout", error.message if error else "The request took too long."
    elif job is not None and job.state.status is JobStatus.FAILED and error is not None:
        code, message = error.code, error.message
    elif job is not None and ending is BatchStatus.COMPLETED:
        code, message = _CANCELLED
    else:
        code, message = _NEVER.get(ending, _LOST)
    return _line(job_id, custom_id, None, {"code": code, "message": message}), False


def _line(job_id: str, custom_id: str, response: Any, error: Any) -> bytes:
    told = {"id": f"batch_req_{job_id}", "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(told) + b"\n"
