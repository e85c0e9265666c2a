"""Webhooks between log, store and receivers: at least once, in order, bounded, and nothing lost without a word."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.api.webhooks import told_job
from muster.control.webhooks.pump import Outlet, WebhookPump
from muster.control.webhooks.service import WebhookDesk
from muster.domain.event import Event
from muster.domain.job import JobSpec
from muster.domain.webhook import OF_JOBS, DeliveryStatus
from muster.errors import Conflict, NotFound, QueueFull, StoreUnavailable, WebhookNotFound
from muster.ids import JobId
from muster.stores.memory import MemoryStore
from muster.webhooks.outcome import Answer, Patience
from muster.webhooks.wanted import Wanted
from tests.clocks import ManualClock
from tests.waiting import eventually

URL = "https://receiver.example/in"
Message = dict[str, Any]


class Receiver:
    """Answers what `answers` says, and holds answers back as long as `open` is not set."""

    def __init__(self) -> None:
        self.answers: Callable[[Message], Answer] = lambda _: Answer(status=204)
        self.got: list[Message] = []
        self.urls: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        message = json.loads(body)
        assert headers["webhook-id"] == message["id"]
        self.got.append(message)
        self.urls.append(url)
        await self.open.wait()
        return self.answers(message)

    @property
    def subjects(self) -> list[str]:
        return [message["data"].get("job_id") or message["type"] for message in self.got]


class Post:
    """One control plane's webhooks over a store that may be shared."""

    def __init__(self, store: MemoryStore, clock: ManualClock, receiver: Receiver, waiting_max: int = 100) -> None:
        self.store = store
        self.clock = clock
        self.leads = True
        outlet = Outlet(jobs=store.jobs, post=receiver, show=told_job, clock=clock)
        rng = random.Random(4)
        self.desk = WebhookDesk(store.webhooks, store.log, store.bus, outlet, clock, rng, private=False)
        self.pump = WebhookPump(
            store.webhooks,
            store.log,
            store.bus,
            outlet,
            clock,
            rng,
            patience=Patience(attempts_max=3, base_s=10.0, failures_max=2),
            waiting_max=waiting_max,
            leads=lambda: self.leads,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.pump.start()
        try:
            yield
        finally:
            await self.pump.stop()

    async def hook(self, **fields: Any) -> str:
        return (await self.desk.create(Wanted(url=URL, **fields), None)).webhook_id

    async def job(self, job_id: str, url: str | None) -> None:
        """Submit a job with an address of its own."""
        spec = JobSpec(job_id=JobId(job_id), service_required="llm", webhook_url=url, submitted_by="t")
        await self.desk.addresses.expect([spec])
        await self.store.jobs.submit([spec])

    async def end(self, *job_ids: str, kind: str = "job_cancelled") -> None:
        ids = job_ids if len(job_ids) > 1 else ()
        await self.store.log.append([Event(kind=kind, key=job_ids[0], at_ms=self.clock.now_ms(), ids=ids)])

    async def status(self, hook: str) -> list[str]:
        return [one.status.value for one in await self.desk.deliveries(hook)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock, event_log_entries_max=100)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def post(store: MemoryStore, clock: ManualClock, receiver: Receiver) -> Post:
    return Post(store, clock, receiver)


async def test_lesson_the_body_shows_the_job_as_it_is_stored(
    post: Post, store: MemoryStore, receiver: Receiver
) -> None:
    hook = await post.hook()
    await store.jobs.submit([JobSpec(job_id=JobId("job-1"), service_required="llm", payload={"secret": 1})])
    await store.jobs.cancel(JobId("job-1"))
    async with post.running():
        await eventually(lambda: receiver.got)

    (message,) = receiver.got
    assert (message["type"], message["version"], message["data"]["job_id"]) == ("job_cancelled", 1, "job-1")
    assert message["data"]["job"]["status"] == "cancelled"
    assert message["data"]["job"]["result"] is None
    assert "payload" not in message["data"]["job"]
    assert await post.status(hook) == ["delivered"]


async def test_a_job_that_is_kept_no_more_is_told_all_the_same(post: Post, receiver: Receiver) -> None:
    await post.hook()
    await post.end("gone")
    async with post.running():
        await eventually(lambda: receiver.got)
    assert receiver.got[0]["data"] == {"job_id": "gone", "job": None}


async def test_a_receiver_that_was_away_gets_everything_in_order_once_it_is_back(
    post: Post, receiver: Receiver, clock: ManualClock
) -> None:
    hook = await post.hook()
    receiver.answers = lambda _: Answer(error="nobody there")
    async with post.running():
        await post.end("job-1", kind="job_failed")
        await post.end("job-1", kind="job_completed")
        await eventually(lambda: receiver.got)
        receiver.answers = lambda _: Answer(status=204)
        clock.advance(10)
        await eventually(lambda: len(receiver.got) == 3)
        await eventually(lambda: _is(post.status(hook), ["delivered", "delivered"]))

    assert [message["type"] for message in receiver.got] == ["job_failed", "job_failed", "job_completed"]
    assert receiver.got[0]["id"] == receiver.got[1]["id"] != receiver.got[2]["id"]


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


async def test_one_killed_in_mid_delivery_leaves_it_to_its_successor(
    post: Post, store: MemoryStore, receiver: Receiver, clock: ManualClock
) -> None:
    hook = await post.hook()
    receiver.open.clear()
    async with post.running():
        await post.end("job-1")
        await eventually(lambda: receiver.got)
    receiver.open.set()
    async with Post(store, clock, receiver).running():
        await eventually(lambda: _is(post.status(hook), ["delivered"]))

    first, second = receiver.got
    assert first["id"] == second["id"]


async def test_only_who_leads_sends_and_the_next_leader_goes_on_where_it_was(
    post: Post, store: MemoryStore, receiver: Receiver, clock: ManualClock
) -> None:
    other = Post(store, clock, receiver)
    other.leads = False
    await post.hook()
    async with post.running(), other.running():
        await post.end("job-1")
        await eventually(lambda: receiver.subjects == ["job-1"])
        await eventually(lambda: _is(store.webhooks.pending(), []))
        post.leads = False
        await eventually(lambda: not post.pump.leading)
        await post.end("job-2")
        other.leads = True
        await eventually(lambda: receiver.subjects == ["job-1", "job-2"])


async def test_what_ended_between_two_leaders_is_told(post: Post, receiver: Receiver) -> None:
    await post.hook()
    async with post.running():
        await post.end("job-1")
        await eventually(lambda: receiver.subjects == ["job-1"])
        await eventually(lambda: not post.pump.waiting)
    await post.end("job-2")
    async with post.running():
        await eventually(lambda: receiver.subjects == ["job-1", "job-2"])


async def test_a_gap_in_the_log_is_told(post: Post, receiver: Receiver) -> None:
    await post.hook()
    async with post.running():
        await post.end("job-1")
        await eventually(lambda: receiver.subjects == ["job-1"])
        await eventually(lambda: not post.pump.waiting)
    for number in range(150):
        await post.end(f"later-{number}", kind="job_claimed")
    await post.end("job-2")
    async with post.running():
        await eventually(lambda: len(receiver.got) == 3)

    assert sorted(receiver.subjects[1:]) == ["events_missed", "job-2"]
    (told,) = [message["data"] for message in receiver.got if message["type"] == "events_missed"]
    assert int(told["after_event_id"]) < int(told["until_event_id"])


async def test_a_webhook_that_always_fails_is_paused_with_the_reason_and_can_go_on(
    post: Post, receiver: Receiver, clock: ManualClock, store: MemoryStore
) -> None:
    hook = await post.hook()
    receiver.answers = lambda _: Answer(status=500, excerpt="broken")
    async with post.running():
        await post.end("job-1")
        await post.end("job-2")
        for attempt in range(1, 4):
            await eventually(lambda attempt=attempt: len(receiver.got) == 2 * attempt)  # type: ignore[misc]  # a lambda
            await eventually(lambda: _none_under_way(store, clock))
            clock.advance(3600)
        paused = await eventually(lambda: _paused(post, hook))
        assert paused == "2 deliveries in a row failed, the last one: it answered 500: broken"
        assert await post.status(hook) == ["failed", "failed"]

        await post.end("job-3")
        newest = await store.log.newest_id()
        await eventually(lambda: _is(store.webhooks.position(), newest))
        receiver.answers = lambda _: Answer(status=204)
        resumed = await post.desk.resume(hook)
        assert resumed.state.paused is None
        await eventually(lambda: receiver.got[-1]["type"] == "events_missed")
        with pytest.raises(Conflict, match="not paused"):
            await post.desk.resume(hook)

    kinds = [entry.event.kind for entry in await store.log.read("0", 100)]
    assert kinds.count("webhook_paused") == kinds.count("webhook_resumed") == 1
    assert "job-3" not in receiver.subjects


async def _none_under_way(store: MemoryStore, clock: ManualClock) -> bool:
    return all(one.due_at_ms > clock.now_ms() for one in await store.webhooks.pending())


async def _paused(post: Post, hook: str) -> str | None:
    return (await post.desk.get(hook)).state.paused


async def test_too_many_that_wait_pause_the_webhook_and_no_other(
    store: MemoryStore, clock: ManualClock, receiver: Receiver
) -> None:
    post = Post(store, clock, receiver, waiting_max=5)
    receiver.open.clear()
    slow = await post.hook()
    quick = await post.hook(events=["job_failed"])
    async with post.running():
        for number in range(7):
            await post.end(f"job-{number}")
        assert "waiting_max" in (await eventually(lambda: _paused(post, slow)) or "")
        receiver.open.set()
        await post.end("job-x", kind="job_failed")
        await eventually(lambda: "job-x" in receiver.subjects)
        assert await _paused(post, quick) is None


async def test_a_new_webhook_hears_what_comes_and_a_removed_one_nothing_more(post: Post, receiver: Receiver) -> None:
    async with post.running():
        await post.end("before")
        hook = await post.hook()
        await post.end("job-1")
        await eventually(lambda: receiver.subjects == ["job-1"])
        await eventually(lambda: not post.pump.waiting)
        await post.desk.remove(hook)
        await post.end("job-2")
        other = await post.hook()
        await post.end("job-3")
        await eventually(lambda: receiver.subjects == ["job-1", "job-3"])

    assert [hooked.webhook.webhook_id for hooked in await post.desk.all()] == [other]
    for call in (post.desk.remove, post.desk.get, post.desk.deliveries, post.desk.test, post.desk.resume):
        with pytest.raises(WebhookNotFound):
            await call(hook)


async def test_what_ended_is_sent_again_under_its_own_id(post: Post, receiver: Receiver) -> None:
    hook = await post.hook()
    async with post.running():
        await post.end("job-1")
        await eventually(lambda: _is(post.status(hook), ["delivered"]))
        again = await post.desk.redeliver(hook, receiver.got[0]["id"])
        assert again.status is DeliveryStatus.PENDING
        await eventually(lambda: len(receiver.got) == 2)
        await eventually(lambda: _is(post.status(hook), ["delivered", "delivered"]))

    assert receiver.got[0]["id"] == receiver.got[1]["id"]
    with pytest.raises(NotFound):
        await post.desk.redeliver(hook, "msg-none")


async def test_a_test_tells_at_once_what_came_of_it(post: Post, receiver: Receiver) -> None:
    hook = await post.hook()
    receiver.answers = lambda _: Answer(status=500, excerpt="no")

    told = await post.desk.test(hook)

    assert (told.status, told.error, told.attempts) == (DeliveryStatus.FAILED, "it answered 500: no", 1)
    assert receiver.got[0]["type"] == "test"
    assert await post.status(hook) == ["failed"]


async def test_there_may_be_only_so_many(post: Post) -> None:
    for _ in range(100):
        await post.hook()
    with pytest.raises(QueueFull):
        await post.hook()


async def test_a_store_that_is_away_for_a_moment_costs_a_repetition_and_nothing_else(
    post: Post, store: MemoryStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await post.hook()
    settle, failures = store.webhooks.settle, [StoreUnavailable("away")]

    async def flaky(delivery: Any) -> None:
        if failures:
            raise failures.pop()
        await settle(delivery)

    monkeypatch.setattr(store.webhooks, "settle", flaky)
    async with post.running():
        await post.end("job-1")
        await eventually(lambda: _is(post.status(hook), ["delivered"]))
    assert {message["id"] for message in receiver.got} == {receiver.got[0]["id"]}
    assert len(receiver.got) == 2


async def test_filters_look_at_the_job(post: Post, store: MemoryStore, receiver: Receiver) -> None:
    await post.hook(customer_id="mine")
    specs = [
        JobSpec(job_id=JobId(f"of-{name}"), service_required="llm", customer_id=name) for name in ("yours", "mine")
    ]
    await store.jobs.submit(specs)
    await post.end("of-yours", "of-mine")
    async with post.running():
        await eventually(lambda: receiver.got)
    assert receiver.subjects == ["of-mine"]


# --- workflows, and addresses of jobs --------------------------------------------------------------------------------


async def test_lesson_a_workflow_is_told_once_for_each_of_its_ends_also_after_a_restart(
    post: Post, store: MemoryStore, clock: ManualClock, receiver: Receiver
) -> None:
    await post.hook(events=["workflow_completed", "workflow_failed"])
    await store.jobs.submit(
        [JobSpec(job_id=JobId(name), service_required="llm", workflow_id="w") for name in ("a", "b")]
    )
    async with post.running():
        await store.jobs.cancel(JobId("a"))
        await store.jobs.cancel(JobId("b"))
        await eventually(lambda: receiver.got)
    async with Post(store, clock, receiver).running():
        await store.jobs.submit([JobSpec(job_id=JobId("c"), service_required="llm", workflow_id="w")])
        await store.jobs.cancel(JobId("c"))
        await eventually(lambda: len(receiver.got) == 2)
    told = [(message["type"], message["data"]) for message in receiver.got]
    assert told == [
        ("workflow_failed", {"workflow_id": "w", "not_completed": 2}),
        ("workflow_failed", {"workflow_id": "w", "not_completed": 3}),
    ]


async def test_a_jobs_own_address_is_told_though_there_are_no_webhooks(
    post: Post, store: MemoryStore, receiver: Receiver
) -> None:
    await post.job("other", None)
    await post.job("a", "https://mine.example/in")
    async with post.running():
        await store.jobs.cancel(JobId("other"))
        await store.jobs.cancel(JobId("a"))
        await eventually(lambda: receiver.got)
        await eventually(lambda: post.pump.waiting == 0)
    assert receiver.subjects == ["a"]
    assert receiver.urls == ["https://mine.example/in"]
    for attempt in (post.desk.remove, post.desk.get):
        with pytest.raises(WebhookNotFound):
            await attempt(OF_JOBS)
    assert await post.status(OF_JOBS) == ["delivered"]


async def test_an_address_that_fails_is_given_up_and_holds_up_no_other(
    post: Post, store: MemoryStore, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = lambda message: Answer(status=500 if message["data"]["job_id"].startswith("bad") else 204)
    for number in range(3):
        await post.job(f"bad-{number}", "https://bad.example/in")
    await post.job("good", "https://bad.example/other")
    async with post.running():
        for job_id in ("bad-0", "bad-1", "bad-2", "good"):
            await store.jobs.cancel(JobId(job_id))

        async def all_ended() -> bool:
            clock.advance(20)
            return sorted(await post.status(OF_JOBS)) == ["delivered", "failed", "failed", "failed"]

        await eventually(all_ended)
    assert await store.webhooks.states() == {}


async def test_more_for_addresses_of_jobs_than_may_wait_has_failed_and_says_why(
    store: MemoryStore, clock: ManualClock, receiver: Receiver
) -> None:
    post = Post(store, clock, receiver, waiting_max=2)
    for number in range(3):
        await post.job(f"j{number}", "https://mine.example/in")
        await store.jobs.cancel(JobId(f"j{number}"))
    async with post.running():

        async def told() -> bool:
            return sorted(await post.status(OF_JOBS)) == ["delivered", "delivered", "failed"]

        await eventually(told)
    errors = {one.error for one in await post.desk.deliveries(OF_JOBS)}
    assert errors == {None, "2 deliveries wait already (setting webhook_waiting_max)"}


async def test_what_ended_before_jobs_had_addresses_is_not_looked_at(
    post: Post, store: MemoryStore, receiver: Receiver
) -> None:
    await store.jobs.submit([JobSpec(job_id=JobId("old"), service_required="llm", webhook_url="https://x.example")])
    await store.jobs.cancel(JobId("old"))
    await post.job("new", "https://x.example")
    await store.jobs.cancel(JobId("new"))
    async with post.running():
        await eventually(lambda: receiver.got)
        await eventually(lambda: post.pump.waiting == 0)
    assert receiver.subjects == ["new"]
