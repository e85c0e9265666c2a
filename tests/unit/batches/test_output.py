"""How requests ended, as OpenAI tells it."""

import json
from typing import Any

import pytest

from muster.batches.output import output_line
from muster.domain.batch import BatchStatus
from muster.domain.file import FileRef
from muster.domain.job import Job, JobError, JobSpec, JobState, JobStatus, ResultFile, encode_result
from muster.ids import JobId

ID = "batch-1-3"


def told(job: Job | None, ending: BatchStatus = BatchStatus.COMPLETED) -> tuple[dict[str, Any], bool]:
    line, is_answer = output_line(ID, "mine", job, ending)
    assert line.endswith(b"\n")
    return json.loads(line), is_answer


def job(status: JobStatus, error: JobError | None = None, **state: Any) -> Job:
    spec = JobSpec(job_id=JobId(ID), service_required="openai")
    return Job(spec=spec, state=JobState(status=status, error=error, **state))


def test_an_answer() -> None:
    assert told(job(JobStatus.COMPLETED, result=encode_result({"object": "chat.completion"}))) == (
        {
            "id": "batch_req_batch-1-3",
            "custom_id": "mine",
            "response": {"status_code": 200, "request_id": ID, "body": {"object": "chat.completion"}},
            "error": None,
        },
        True,
    )


def test_an_answer_that_is_a_file_is_an_error_that_says_where() -> None:
    file = FileRef(name="r", type="application/json", bytes=2_000_000, sha256="0", url="/api/files/batch-1-3/1-r")
    line, is_answer = told(job(JobStatus.COMPLETED, result=encode_result(ResultFile(result_file=file))))
    assert (line["response"], line["error"]["code"], is_answer) == (None, "result_too_large", False)
    assert "2000000 bytes" in line["error"]["message"]
    assert file.url in line["error"]["message"]


def test_an_answer_that_only_looks_like_a_file_is_an_answer() -> None:
    line, is_answer = told(job(JobStatus.COMPLETED, result=encode_result({"result_file": "mine"})))
    assert (line["response"]["body"], is_answer) == ({"result_file": "mine"}, True)


@pytest.mark.parametrize(
    ("found", "ending", "code"),
    [
        (
            job(JobStatus.FAILED, JobError(code="upstream_failed", message="x")),
            BatchStatus.COMPLETED,
            "upstream_failed",
        ),
        (job(JobStatus.TIMEOUT, JobError(code="lease", message="x")), BatchStatus.COMPLETED, "request_timeout"),
        (job(JobStatus.TIMEOUT), BatchStatus.COMPLETED, "request_timeout"),
        (job(JobStatus.CANCELLED), BatchStatus.COMPLETED, "cancelled"),
        (job(JobStatus.CANCELLED), BatchStatus.CANCELLED, "batch_cancelled"),
        (job(JobStatus.CANCELLED), BatchStatus.EXPIRED, "batch_expired"),
        (None, BatchStatus.EXPIRED, "batch_expired"),
        (None, BatchStatus.CANCELLED, "batch_cancelled"),
        (None, BatchStatus.COMPLETED, "job_lost"),
    ],
)
def test_what_is_no_answer_says_why(found: Job | None, ending: BatchStatus, code: str) -> None:
    line, is_answer = told(found, ending)
    assert not is_answer
    assert line["response"] is None
    assert line["error"]["code"] == code
    assert line["error"]["message"]
