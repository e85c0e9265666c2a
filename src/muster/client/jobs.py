"""A job as callers see it, and what they may ask for when they submit one."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec
from msgspec import Struct

from muster.domain.job import TERMINAL, JobError, JobStatus, Progress, Requirements, Retry


class Job(Struct, frozen=True, kw_only=True):
    """How a job stands. Times are in ms since the epoch.

    `result` is there once it completed; `payload` only where the job was read with `get` or
    comes from a map.
    """

    job_id: str
    service_required: str = ""
    status: str = JobStatus.PENDING.value
    priority: int = 50
    payload: Any = None
    result: Any = None
    error: JobError | None = None
    progress: Progress | None = None
    worker_id: str | None = None
    attempt: int = 0
    retry_count: int = 0
    max_retries: int = 0
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    next_attempt_at: int | None = None
    customer_id: str | None = None
    workflow_id: str | None = None

    @property
    def done(self) -> bool:
        """It has ended, one way or another."""
        return self.status in TERMINAL

    @property
    def ok(self) -> bool:
        return self.status == JobStatus.COMPLETED

    @property
    def fraction(self) -> float | None:
        """How far it is, 0 to 1; None where its service does not tell."""
        return self.progress.fraction if self.progress is not None else None


class JobOptions(TypedDict, total=False):
    """What a job may ask for besides service and payload; what is left out is up to the control plane.

    Times of day are in ms since the epoch. `timeout_s` bounds one attempt, `deadline_s` the whole job. It waits for the
    jobs it `depends_on`, and fails with them unless `on_failure` is "run". An `idempotency_key` makes the same request
    the same job, whoever sends it again.
    """

    job_id: str
    idempotency_key: str
    priority: int
    requirements: Requirements | Mapping[str, Any]
    run_at: int
    delay_s: float
    timeout_s: float
    deadline_s: float
    max_retries: int
    retry: Retry | Mapping[str, Any]
    depends_on: Sequence[str]
    on_failure: Literal["fail", "run"]
    customer_id: str
    workflow_id: str
    workflow_priority: int
    workflow_datetime: int
    step_number: int
    webhook_url: str


class NewJob(Struct, frozen=True):
    service: str
    payload: Any = None
    options: JobOptions = {}  # msgspec copies an empty default for each instance


def job_of(data: Any) -> Job:
    """Read a job as the API shows it; what this version does not know is left out."""
    return msgspec.convert(data, Job)
