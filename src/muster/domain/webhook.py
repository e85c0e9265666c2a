"""Whom to tell when work ends, and each telling of it."""

from enum import StrEnum
from typing import Any

from msgspec import Struct

PREFIX = "hook"
OF_JOBS = "jobs"  # stands for a webhook's id where a job's own address is told


class Webhook(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address and what it wants to hear of. Of the filters that are set all must fit.

    `since` is the place in the log after which it listens.
    """

    webhook_id: str
    url: str
    events: tuple[str, ...]
    secret: str
    created_at_ms: int
    since: str
    service: str | None = None
    customer_id: str | None = None
    workflow_id: str | None = None
    created_by: str | None = None  # the id of the token that was shown


class JobHooks(Struct, frozen=True, kw_only=True):
    """Since which place in the log jobs have addresses of their own; of `secret` that of each submitter is made."""

    since: str
    secret: str


class HookState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it goes with a webhook; `paused` is why nothing is sent, in words."""

    failed_in_row: int = 0
    paused: str | None = None
    paused_at_ms: int | None = None
    missed_after: str | None = None  # the place in the log after which it was told nothing


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to tell one webhook. Its id is made of what it is about, so a repetition has the same one.

    `subject` is the job, or what else the event is about: of one subject the next is told after the one before.
    """

    delivery_id: str
    webhook_id: str
    kind: str
    subject: str
    event_id: str
    occurred_at_ms: int
    created_at_ms: int
    due_at_ms: int
    data: dict[str, Any] = {}
    url: str | None = None  # a job's own address; with whose job it is, whose secret signs
    owner: str | None = None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    ended_at_ms: int | None = None
    response_status: int | None = None
    took_ms: int | None = None
    error: str | None = None
