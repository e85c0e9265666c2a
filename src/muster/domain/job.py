"""A job: its specification never changes after submit; its state does."""

from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from muster.domain.file import FileRef
from muster.ids import JobId, SessionId, WorkerId


class JobStatus(StrEnum):
    PENDING = "pending"
    ASSIGNED = "assigned"  # claimed, its connector has not reported yet
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    UNWORKABLE = "unworkable"  # pending, and nobody in the fleet can run it


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT})
TIMEOUT_S = 3600.0  # of an attempt, where a job does not say
ACTIVE = frozenset({JobStatus.ASSIGNED, JobStatus.IN_PROGRESS})


BACKGROUND_PRIORITY = 0  # is begun only where nobody waits for an answer of the gateway


class Hardware(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Lower bounds, except gpu_model, which must be part of the card's name (any case)."""

    gpu_memory_gb: float | None = None
    cpu_cores: int | None = None
    ram_gb: float | None = None
    gpu_model: str | None = None


class Conditions(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a worker can have, besides the service. `custom` follows the rules in jobs/matching.py."""

    models: tuple[str, ...] = ()
    hardware: Hardware = Hardware()
    labels: dict[str, str] = field(default_factory=dict)
    custom: dict[str, Any] = field(default_factory=dict)


class Requirements(Conditions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a worker must have, and what it must not: whatever meets a single condition of `negative` is refused.

    `isolation`: only workers that keep customers apart from each other.
    """

    negative: Conditions | None = None
    isolation: Literal["strict"] | None = None


class Need(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What decides who may run a job, but for its customer. Equal needs share a signature."""

    service: str
    requirements: Requirements = Requirements()


class JobError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: str
    message: str
    retriable: bool = True
    retry_after_s: float | None = None  # not sooner, by the word of the service


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`fraction` is 0 to 1; None where the service does not tell.

    `text` is the end of an answer that is being written, for jobs that asked for it: a bounded part of it that
    begins at its character `text_at`. `preview_url` is where the newest picture of what is being made lies.
    """

    fraction: float | None = None
    message: str | None = None
    at_ms: int | None = None
    text: str | None = None
    text_at: int = 0
    preview_url: str | None = None


class Retry(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a job is tried again: after `base_s`, then `factor` times as long each time, `max_s` at most.

    `jitter` is the share of a wait that is left to chance. None: as the control plane has it. After an error whose code
    is in `not_on` there is no other attempt.
    """

    base_s: float | None = None
    factor: float | None = None
    max_s: float | None = None
    jitter: float | None = None
    not_on: tuple[str, ...] = ()


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for. `priority` 0 to 100, higher first.

    `timeout_s` bounds one attempt, `deadline_s` the whole job from its submit on, waiting or running. Before `run_at`
    (ms) it is not in line. It waits for the jobs it `depends_on`; when one of them does not complete it fails as well,
    or runs all the same with `on_failure` "run". `idempotency` is a digest of the request that a key was given for.
    """

    job_id: JobId
    service_required: str
    payload: Any = None
    requirements: Requirements = Requirements()
    priority: int = 50
    max_retries: int = 3
    timeout_s: float = TIMEOUT_S
    customer_id: str | None = None
    workflow_id: str | None = None
    workflow_priority: int | None = None
    workflow_datetime: int | None = None
    step_number: int | None = None
    created_at: int = 0  # ms
    submitted_by: str | None = None  # the id of the token that was shown
    run_at: int | None = None
    deadline_s: float | None = None
    retry: Retry | None = None
    depends_on: tuple[JobId, ...] = ()
    on_failure: Literal["fail", "run"] = "fail"
    idempotency: str | None = None
    traceparent: str | None = None  # of the trace that it is a part of
    webhook_url: str | None = None  # told of its end, beside all webhooks
    correlation_id: str | None = None  # of the request that submitted it

    @property
    def need(self) -> Need:
        return Need(service=self.service_required, requirements=self.requirements)


class JobState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job stands. `attempt` counts claims from 1 and is the fencing token of the running one."""

    status: JobStatus = JobStatus.PENDING
    attempt: int = 0
    retry_count: int = 0
    worker_id: WorkerId | None = None
    session_id: SessionId | None = None
    avoid_worker: WorkerId | None = None
    next_attempt_at: int | None = None  # ms; set while the job waits for its time
    waiting_for: int = 0  # how many of the jobs it depends on have not ended yet
    started_at: int | None = None
    completed_at: int | None = None
    progress: Progress | None = None
    result: Raw | UnsetType = UNSET
    error: JobError | None = None
    reason: str | None = None  # why nobody can run it and what would help; shown with a job, never stored


class Job(Struct, frozen=True, kw_only=True):
    spec: JobSpec
    state: JobState

    @property
    def job_id(self) -> JobId:
        return self.spec.job_id


class ClaimedJob(Struct, frozen=True, kw_only=True):
    """A lease on one job: results count only with this attempt number."""

    spec: JobSpec
    attempt: int
    deadline_ms: int


class Settlement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt ended, as decided by jobs/retry.py; the store refuses it when the lease is lost.

    `status` is a terminal status, or PENDING to try again not before `retry_at_ms`. An attempt that
    does not count (a worker that stopped politely) leaves `retry_count` alone; `attempt` grows all the same, being the
    fencing token.
    """

    job_id: JobId
    attempt: int
    status: JobStatus
    counts: bool = True
    retry_at_ms: int | None = None
    avoid_worker: WorkerId | None = None
    result: Raw | UnsetType = UNSET
    error: JobError | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """A claim whose session or deadline ran out."""

    spec: JobSpec
    attempt: int
    retry_count: int
    worker_id: WorkerId
    session_id: SessionId
    expired: str  # "session" (the worker was not heard) or "deadline" (the attempt took too long)


class ResultFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in the place of a result that is too large to be told: the file that holds all of it, as JSON."""

    result_file: FileRef


_RESULT_FILE = b'{"result_file":'


def result_file_of(result: Raw) -> FileRef | None:
    """Return the file that holds a result; None where it is told itself."""
    if memoryview(result)[: len(_RESULT_FILE)] != _RESULT_FILE:
        return None
    try:
        return msgspec.json.decode(result, type=ResultFile).result_file
    except msgspec.ValidationError:  # a connector's own words
        return None


def encode_result(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
