"""Webhooks, how it goes with them, and what waits to be sent."""

from msgspec.structs import replace

from muster.domain.webhook import Delivery, DeliveryStatus, HookState, JobHooks, Webhook
from muster.stores import rules
from muster.webhooks.wanted import new_delivery
from tests.contract.stores.world import Store


def hook(webhook_id: str, **fields: object) -> Webhook:
    base: dict[str, object] = {
        "url": "https://receiver.example/in",
        "events": ("job_completed",),
        "secret": "whsec_c2VjcmV0",
        "created_at_ms": 7,
        "since": "0",
    }
    return Webhook(webhook_id=webhook_id, **(base | fields))  # type: ignore[arg-type]  # a test's own shorthand


def delivery(event_id: str, webhook_id: str = "a", subject: str = "job-1") -> Delivery:
    return new_delivery(webhook_id, "job_completed", subject, event_id, occurred_at_ms=5, now_ms=6)


def ended(one: Delivery, at_ms: int = 9) -> Delivery:
    return replace(one, status=DeliveryStatus.DELIVERED, ended_at_ms=at_ms, attempts=1, response_status=204)


async def test_webhooks_are_kept_whole_the_oldest_first(store: Store) -> None:
    full = hook("a", created_at_ms=9, service="llm", customer_id="c", workflow_id="w", created_by="t")
    await store.webhooks.add(full)
    await store.webhooks.add(hook("b"))

    assert await store.webhooks.load() == [hook("b"), full]


async def test_states_are_kept_by_webhook(store: Store) -> None:
    paused = HookState(failed_in_row=3, paused="it failed", paused_at_ms=5, missed_after="7-1")
    await store.webhooks.set_state("a", paused)
    await store.webhooks.set_state("b", HookState())
    await store.webhooks.set_state("b", HookState(failed_in_row=1))

    assert await store.webhooks.states() == {"a": paused, "b": HookState(failed_in_row=1)}


async def test_a_removed_webhook_is_gone_with_all_that_it_was_to_be_told(store: Store) -> None:
    await store.webhooks.add(hook("a"))
    await store.webhooks.set_state("a", HookState(failed_in_row=1))
    await store.webhooks.plan([delivery("1-0"), delivery("1-0", "b")])
    await store.webhooks.settle(ended(delivery("0-1")))

    assert await store.webhooks.remove("a")
    assert not await store.webhooks.remove("a")
    assert await store.webhooks.load() == []
    assert await store.webhooks.states() == {}
    assert await store.webhooks.history("a") == []
    assert await store.webhooks.pending() == [delivery("1-0", "b")]


async def test_the_position_is_that_of_the_last_plan_that_had_one(store: Store) -> None:
    assert await store.webhooks.position() is None
    await store.webhooks.plan([], "5-0")
    await store.webhooks.plan([delivery("6-0")])

    assert await store.webhooks.position() == "5-0"


async def test_what_waits_comes_in_the_order_of_the_log_however_it_was_planned(store: Store) -> None:
    planned = [delivery(place) for place in ("10-2", "9-0", "10-10", "10-1")]
    await store.webhooks.plan(planned, "10-10")
    await store.webhooks.plan(planned, "10-10")

    assert [one.event_id for one in await store.webhooks.pending()] == ["9-0", "10-1", "10-2", "10-10"]


async def test_many_are_planned_at_once(store: Store) -> None:
    await store.webhooks.plan([delivery(f"{number}-0") for number in range(1200)])

    assert len(await store.webhooks.pending()) == 1200


async def test_a_failed_attempt_waits_on_and_one_that_ended_becomes_history(store: Store) -> None:
    await store.webhooks.plan([delivery("1-0"), delivery("2-0")])
    tried = replace(delivery("1-0"), attempts=1, due_at_ms=99, error="it answered 500", response_status=500)
    await store.webhooks.settle(tried)
    await store.webhooks.settle(ended(delivery("2-0")))

    assert await store.webhooks.pending() == [tried]
    assert await store.webhooks.history("a") == [ended(delivery("2-0"))]


async def test_history_is_bounded_and_begins_with_the_newest(store: Store) -> None:
    for number in range(rules.WEBHOOK_HISTORY_MAX + 5):
        await store.webhooks.settle(ended(delivery(f"{number}-0"), at_ms=number))

    found = await store.webhooks.history("a")
    assert len(found) == rules.WEBHOOK_HISTORY_MAX
    assert [one.ended_at_ms for one in found[:2]] == [rules.WEBHOOK_HISTORY_MAX + 4, rules.WEBHOOK_HISTORY_MAX + 3]


async def test_since_when_jobs_have_addresses_of_their_own_is_said_once(store: Store) -> None:
    first = JobHooks(since="7-1", secret="a")

    assert await store.webhooks.job_hooks() is None
    assert await store.webhooks.begin_job_hooks(first) == first
    assert await store.webhooks.begin_job_hooks(JobHooks(since="9-1", secret="b")) == first
    assert await store.webhooks.job_hooks() == first
