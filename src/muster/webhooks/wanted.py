"""A webhook as asked for, and which events it is told of."""

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Rng
from muster.domain.event import LoggedEvent
from muster.domain.job import Job
from muster.domain.webhook import OF_JOBS, PREFIX, Delivery, HookState, JobHooks, Webhook
from muster.errors import InvalidInput
from muster.ids import new_id
from muster.webhooks.address import why_not_host

# Only what is final: a failure that is tried again is nobody's business but ours.
JOB_EVENTS = ("job_completed", "job_failed", "job_cancelled", "job_timeout")
BATCH_EVENTS = ("batch_completed", "batch_failed", "batch_expired", "batch_cancelled")
WORKFLOW_EVENTS = ("workflow_completed", "workflow_failed")
EVENTS = (*JOB_EVENTS, *WORKFLOW_EVENTS, *BATCH_EVENTS)
TEST = "test"
MISSED = "events_missed"  # told to everybody whom it concerns: what happened meanwhile is to be looked up

SECRET_PREFIX = "whsec_"  # noqa: S105 - of every secret
_SECRET_BITS = 256
_URL_CHARS_MAX = 2048
_DIGEST_CHARS = 24

OfJob = Callable[[str], Job | None]


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`events` is what to be told of, all of it when left out. Filters that are given must all fit."""

    url: str
    events: list[str] | None = None
    service: str | None = None
    customer_id: str | None = None
    workflow_id: str | None = None


def make_webhook(wanted: Wanted, *, since: str, now_ms: int, rng: Rng, owner: str | None, private: bool) -> Webhook:
    """Raise InvalidInput that names the field. `private` allows addresses of our own networks."""
    check_url(wanted.url, private=private)
    events = tuple(dict.fromkeys(EVENTS if wanted.events is None else wanted.events))
    if not events or (unknown := next((name for name in events if name not in EVENTS), None)):
        problem = f"has no {unknown!r}" if events else "is empty"
        raise InvalidInput(f"events {problem}; there are {', '.join(EVENTS)}", field="events")
    return Webhook(
        webhook_id=new_id(PREFIX, now_ms, rng),
        url=wanted.url,
        events=events,
        secret=new_secret(rng),
        created_at_ms=now_ms,
        since=since,
        service=wanted.service,
        customer_id=wanted.customer_id,
        workflow_id=wanted.workflow_id,
        created_by=owner,
    )


def new_secret(rng: Rng) -> str:
    return SECRET_PREFIX + base64.b64encode(rng.getrandbits(_SECRET_BITS).to_bytes(_SECRET_BITS // 8, "big")).decode()


def secret_of(hooks: JobHooks, owner: str | None) -> str:
    """Return the secret of those who submit jobs with this token: each has its own, and none leads to another's."""
    own = hmac.digest(hooks.secret.encode(), (owner or "").encode(), "sha256")
    return SECRET_PREFIX + base64.b64encode(own).decode()


def check_url(url: str, *, private: bool, field: str = "url") -> SplitResult:
    """Names are judged again by what they stand for, whenever something is sent."""
    try:
        parts = urlsplit(url)
        fits = bool(parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0)
    except ValueError:  # a port that is none, a bracket that does not close
        fits = False
    if not fits or len(url) > _URL_CHARS_MAX or not url.isprintable() or " " in url:
        raise InvalidInput(f"{field} must be an http:// or https:// address", field=field)
    if parts.username is not None or parts.fragment:
        raise InvalidInput(
            f"{field} must have no user name and no fragment: receivers know us by the signature", field=field
        )
    if not private and (why := why_not_host(parts.hostname or "")):
        raise InvalidInput(f"{why}; the setting webhook_private_addresses would allow it", field=field)
    return parts


def order(log_id: str) -> tuple[int, ...]:
    """Return what ids of the log are compared by."""
    return tuple(int(part) for part in log_id.split("-"))


def needs_jobs(webhooks: Sequence[Webhook], kind: str) -> bool:
    """Whether it takes a look at the jobs to know whom to tell."""
    return kind in JOB_EVENTS and any(
        kind in hook.events and (hook.service or hook.customer_id or hook.workflow_id) for hook in webhooks
    )


def deliveries_of(
    entry: LoggedEvent, webhooks: Sequence[Webhook], states: Mapping[str, HookState], of_job: OfJob, now_ms: int
) -> list[Delivery]:
    """Return what an entry of the log gives to tell; paused webhooks are left out, they hear that they missed some."""
    event = entry.event
    if event.kind not in EVENTS:
        return []
    found = []
    for hook in webhooks:
        state = states.get(hook.webhook_id)
        if event.kind not in hook.events or (state and state.paused) or order(entry.id) <= order(hook.since):
            continue
        found += [
            new_delivery(
                hook.webhook_id,
                event.kind,
                subject,
                entry.id,
                occurred_at_ms=event.at_ms,
                now_ms=now_ms,
                data={} if event.kind in JOB_EVENTS else event.data,
            )
            for subject in event.ids or (event.key,)
            if _fits(hook, event.kind, subject, of_job)
        ]
    return found


def own_deliveries_of(entry: LoggedEvent, hooks: JobHooks, of_job: OfJob, now_ms: int) -> list[Delivery]:
    """Return what an entry of the log gives to tell to addresses of the jobs themselves."""
    event = entry.event
    if event.kind not in JOB_EVENTS or order(entry.id) <= order(hooks.since):
        return []
    named = [job for job in map(of_job, event.ids or (event.key,)) if job is not None and job.spec.webhook_url]
    return [
        replace(
            new_delivery(OF_JOBS, event.kind, job.job_id, entry.id, occurred_at_ms=event.at_ms, now_ms=now_ms),
            url=job.spec.webhook_url,
            owner=job.spec.submitted_by,
        )
        for job in named
    ]


def own_hook(hooks: JobHooks, delivery: Delivery) -> Webhook:
    """Return what a delivery to a job's own address is sent by."""
    return Webhook(
        webhook_id=OF_JOBS,
        url=delivery.url or "",
        events=JOB_EVENTS,
        secret=secret_of(hooks, delivery.owner),
        created_at_ms=delivery.created_at_ms,
        since=hooks.since,
    )


def _fits(hook: Webhook, kind: str, subject: str, of_job: OfJob) -> bool:
    if hook.service is None and hook.customer_id is None and hook.workflow_id is None:
        return True
    if kind not in JOB_EVENTS:  # the workflow of a batch's jobs has its name
        return hook.service is None and hook.customer_id is None and hook.workflow_id == subject
    job = of_job(subject)
    return job is not None and all(
        wanted is None or wanted == found
        for wanted, found in (
            (hook.service, job.spec.service_required),
            (hook.customer_id, job.spec.customer_id),
            (hook.workflow_id, job.spec.workflow_id),
        )
    )


def new_delivery(
    webhook_id: str,
    kind: str,
    subject: str,
    event_id: str,
    *,
    occurred_at_ms: int,
    now_ms: int,
    data: dict[str, object] | None = None,
) -> Delivery:
    told = f"{webhook_id}\n{kind}\n{subject}\n{event_id}".encode()
    return Delivery(
        delivery_id=f"msg-{sha256(told).hexdigest()[:_DIGEST_CHARS]}",
        webhook_id=webhook_id,
        kind=kind,
        subject=subject,
        event_id=event_id,
        occurred_at_ms=occurred_at_ms,
        created_at_ms=now_ms,
        due_at_ms=now_ms,
        data=data or {},
    )
