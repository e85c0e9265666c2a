"""Webhooks: whom to tell when work ends, and how that went."""

import http
from typing import Any

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Struct
from msgspec.structs import replace

from muster.api.plane import TheCaller, ThePlane
from muster.api.views import job_view
from muster.control.webhooks.service import Hooked
from muster.domain.job import Job
from muster.domain.webhook import Delivery, DeliveryStatus, HookState
from muster.webhooks.wanted import Wanted


class WebhookView(Struct, frozen=True, kw_only=True):
    """`paused` is why nothing is sent at present; `waiting` counts the deliveries that are still to be made."""

    id: str
    url: str
    events: tuple[str, ...]
    service: str | None
    customer_id: str | None
    workflow_id: str | None
    created_at: int
    paused: str | None
    paused_at: int | None
    failed_in_row: int
    waiting: int


class NewWebhook(Struct, frozen=True, kw_only=True):
    """`secret` is shown this once; deliveries are signed with it."""

    secret: str
    webhook: WebhookView


class JobsSecret(Struct, frozen=True, kw_only=True):
    """What the `webhook_url` of your jobs is signed with, as long as you show this token."""

    secret: str


class DeliveryView(Struct, frozen=True, kw_only=True):
    """`id` is what receivers find in the header `webhook-id`; a repetition has the same one. Times in ms."""

    id: str
    webhook_id: str
    type: str
    subject: str
    event_id: str
    status: DeliveryStatus
    attempts: int
    occurred_at: int
    created_at: int
    due_at: int | None
    ended_at: int | None
    response_status: int | None
    took_ms: int | None
    error: str | None


@post(
    "/api/webhooks",
    tags=["webhooks"],
    summary="Have an address told when work ends; its secret is shown this once",
    status_code=http.HTTPStatus.CREATED,
)
async def create_webhook(plane: ThePlane, caller: TheCaller, data: JSONBody[Wanted]) -> NewWebhook:
    webhook = await plane.webhooks.create(data, caller.owner)
    return NewWebhook(secret=webhook.secret, webhook=_view(Hooked(webhook=webhook, state=HookState(), waiting=0)))


@get("/api/webhooks", tags=["webhooks"], summary="All webhooks, without their secrets")
async def webhooks(plane: ThePlane) -> list[WebhookView]:
    return [_view(hooked) for hooked in await plane.webhooks.all()]


@get(
    "/api/webhooks/jobs/secret",
    tags=["webhooks"],
    summary="The secret with which the `webhook_url` of your own jobs is signed",
)
async def jobs_secret(plane: ThePlane, caller: TheCaller) -> JobsSecret:
    return JobsSecret(secret=await plane.webhooks.addresses.secret(caller.owner))


@get("/api/webhooks/{webhook_id:str}", tags=["webhooks"], summary="One webhook, and how it goes with it")
async def webhook(plane: ThePlane, webhook_id: FromPath[str]) -> WebhookView:
    return _view(await plane.webhooks.get(webhook_id))


@delete("/api/webhooks/{webhook_id:str}", tags=["webhooks"], summary="Remove a webhook with all that waits for it")
async def remove_webhook(plane: ThePlane, webhook_id: FromPath[str]) -> None:
    await plane.webhooks.remove(webhook_id)


@get(
    "/api/webhooks/{webhook_id:str}/deliveries",
    tags=["webhooks"],
    summary="What it is to be told, and the newest that it was told",
)
async def deliveries(plane: ThePlane, webhook_id: FromPath[str]) -> list[DeliveryView]:
    return [_delivery_view(one) for one in await plane.webhooks.deliveries(webhook_id)]


@post(
    "/api/webhooks/{webhook_id:str}/deliveries/{delivery_id:str}/redeliver",
    tags=["webhooks"],
    summary="Send a delivery that ended once more, under its own id",
    status_code=http.HTTPStatus.OK,
)
async def redeliver(plane: ThePlane, webhook_id: FromPath[str], delivery_id: FromPath[str]) -> DeliveryView:
    return _delivery_view(await plane.webhooks.redeliver(webhook_id, delivery_id))


@post(
    "/api/webhooks/{webhook_id:str}/test",
    tags=["webhooks"],
    summary="Send a test now, once, and answer with what came of it",
    status_code=http.HTTPStatus.OK,
)
async def test_webhook(plane: ThePlane, webhook_id: FromPath[str]) -> DeliveryView:
    return _delivery_view(await plane.webhooks.test(webhook_id))


@post(
    "/api/webhooks/{webhook_id:str}/resume",
    tags=["webhooks"],
    summary="Go on with a webhook that was paused",
    status_code=http.HTTPStatus.OK,
)
async def resume_webhook(plane: ThePlane, webhook_id: FromPath[str]) -> WebhookView:
    return _view(await plane.webhooks.resume(webhook_id))


def told_job(job: Job) -> Any:
    """Return a job as receivers see it: with its result, without its payload."""
    return replace(job_view(job, whole=True), payload=UNSET)


def _view(hooked: Hooked) -> WebhookView:
    webhook, state = hooked.webhook, hooked.state
    return WebhookView(
        id=webhook.webhook_id,
        url=webhook.url,
        events=webhook.events,
        service=webhook.service,
        customer_id=webhook.customer_id,
        workflow_id=webhook.workflow_id,
        created_at=webhook.created_at_ms,
        paused=state.paused,
        paused_at=state.paused_at_ms,
        failed_in_row=state.failed_in_row,
        waiting=hooked.waiting,
    )


def _delivery_view(one: Delivery) -> DeliveryView:
    return DeliveryView(
        id=one.delivery_id,
        webhook_id=one.webhook_id,
        type=one.kind,
        subject=one.subject,
        event_id=one.event_id,
        status=one.status,
        attempts=one.attempts,
        occurred_at=one.occurred_at_ms,
        created_at=one.created_at_ms,
        due_at=one.due_at_ms if one.status is DeliveryStatus.PENDING else None,
        ended_at=one.ended_at_ms,
        response_status=one.response_status,
        took_ms=one.took_ms,
        error=one.error,
    )


HANDLERS = [
    create_webhook,
    webhooks,
    jobs_secret,
    webhook,
    remove_webhook,
    deliveries,
    redeliver,
    test_webhook,
    resume_webhook,
]
