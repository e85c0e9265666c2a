"""What a client and the control plane say to each other over `/ws/client/{id}`, each as one JSON text.

Every request may have an `id`; what answers it bears that as its `message_id`. Fields that are not known are ignored.
"""

from typing import Any

from msgspec import Struct, field

JOBS_PER_MESSAGE_MAX = 1000


# --- from the client -------------------------------------------------------------------------------------------------


class Asked(Struct, frozen=True, kw_only=True):
    """What all requests have; `submit_job` has the fields of POST /api/jobs besides."""

    type: str
    id: str | None = None


class _Request(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    id: str | None = None


class SubscribeJob(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="subscribe_job"):
    """`after` has, by job, the `event_id` that was heard last: what has not changed since is not told again."""

    job_id: str | None = None
    job_ids: tuple[str, ...] = ()
    after: dict[str, str] = field(default_factory=dict)


class UnsubscribeJob(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="unsubscribe_job"):
    job_id: str | None = None
    job_ids: tuple[str, ...] = ()


class CancelJob(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="cancel_job"):
    job_id: str


class RequestJobStatus(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="request_job_status"):
    job_id: str


# --- from the control plane ------------------------------------------------------------------------------------------


class _Told(Struct, frozen=True, kw_only=True, tag_field="type"):
    timestamp: int = 0  # ms


class ConnectionEstablished(_Told, frozen=True, kw_only=True, tag="connection_established"):
    client_id: str
    subscriptions_max: int


class JobAccepted(_Told, frozen=True, kw_only=True, tag="job_accepted"):
    """The job is stored, and followed. `created` is false where its id was known: nothing was changed then."""

    message_id: str | None = None
    job_id: str
    status: str
    created: bool


class SubscriptionConfirmed(_Told, frozen=True, kw_only=True, tag="subscription_confirmed"):
    message_id: str | None = None
    job_ids: tuple[str, ...]


class Ack(_Told, frozen=True, kw_only=True, tag="ack"):
    message_id: str | None = None
    original_type: str
    job_id: str | None = None
    status: str | None = None


class ResponseJobStatus(_Told, frozen=True, kw_only=True, tag="response_job_status"):
    message_id: str | None = None
    job_id: str
    status: str
    job: Any


class JobUpdate(_Told, frozen=True, kw_only=True, tag="job_update"):
    """A job's new state, without payload and result; its end is `complete_job`."""

    event_id: str
    job_id: str
    status: str
    job: Any


class UpdateJobProgress(_Told, frozen=True, kw_only=True, tag="update_job_progress"):
    """`progress` is in percent, `fraction` the same from 0 to 1; null where the service does not tell."""

    job_id: str
    progress: float | None
    fraction: float | None = None
    message: str | None = None
    text: str | None = None
    text_at: int = 0


class CompleteJob(_Told, frozen=True, kw_only=True, tag="complete_job"):
    """The job has ended, however it did: this comes once for each, and nothing of that job after it."""

    event_id: str
    job_id: str
    status: str
    worker_id: str | None
    result: Any = None
    error: Any = None
    job: Any


class Error(_Told, frozen=True, kw_only=True, tag="error"):
    """What a request, or one job of it, could not have. `error` says it for people, `code` for programs."""

    message_id: str | None = None
    job_id: str | None = None
    error: str
    code: str
    retriable: bool
    field: str | None = None
    retry_after_ms: int | None = None


Told = (
    ConnectionEstablished
    | JobAccepted
    | SubscriptionConfirmed
    | Ack
    | ResponseJobStatus
    | JobUpdate
    | UpdateJobProgress
    | CompleteJob
    | Error
)
