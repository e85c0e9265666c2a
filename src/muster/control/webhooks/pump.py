"""From the log of facts to receivers: turned into deliveries in its order, sent until they are taken or given up.

Only the control plane that leads does it. What it does not get to keep is done again by its successor, with the same
delivery ids: at least once.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from muster.clock import Clock, Rng
from muster.domain.event import Event, LoggedEvent
from muster.domain.job import Job
from muster.domain.webhook import OF_JOBS, Delivery, DeliveryStatus, HookState, JobHooks, Webhook
from muster.errors import MusterError
from muster.ids import JobId
from muster.ports import Bus, DeliveryStore, EventLog, JobIndex, WebhookStore
from muster.rounds import Rounds, wait_up_to
from muster.webhooks import outcome, wanted
from muster.webhooks.outbox import Outbox
from muster.webhooks.outcome import Answer, Patience
from muster.webhooks.signature import headers_of

log = structlog.get_logger()

TOPIC = "webhooks"
VERSION = 1

_BATCH = 500
_TICK_S = 0.5
_REFRESH_S = 30.0  # a lost word on the bus costs at most this
_AT_ONCE = 64
_AT_ONCE_PER_HOOK = 4

ShowJob = Callable[[Job], Any]


class WebhookRecords(WebhookStore, DeliveryStore, Protocol):
    """The two faces of the one store."""


class Post(Protocol):
    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer: ...


class Outlet(Struct, frozen=True, kw_only=True):
    """What it takes to send one delivery. `show` is how a job looks to receivers."""

    jobs: JobIndex
    post: Post
    show: ShowJob
    clock: Clock

    async def send(self, hook: Webhook, delivery: Delivery) -> Answer:
        body = await self.body(delivery)
        headers = headers_of(hook.secret, delivery.delivery_id, self.clock.now_ms(), body)
        return await self.post.send(hook.url, headers, body)

    async def body(self, delivery: Delivery) -> bytes:
        """Say what happened, and of a job how it stands now, which is never older than what happened."""
        data: dict[str, Any] = dict(delivery.data)
        if delivery.kind in wanted.JOB_EVENTS:
            (job,) = await self.jobs.get([JobId(delivery.subject)])
            data |= {"job_id": delivery.subject, "job": None if job is None else self.show(job)}
        elif delivery.kind in wanted.WORKFLOW_EVENTS:
            data |= {"workflow_id": delivery.subject}
        elif delivery.kind in wanted.BATCH_EVENTS:
            data |= {"batch_id": delivery.subject}
        told = {
            "id": delivery.delivery_id,
            "type": delivery.kind,
            "version": VERSION,
            "timestamp_ms": delivery.occurred_at_ms,
            "data": data,
        }
        return msgspec.json.encode(told)


class WebhookPump:
    """A Lifecycle."""

    def __init__(
        self,
        store: WebhookRecords,
        events: EventLog,
        bus: Bus,
        outlet: Outlet,
        clock: Clock,
        rng: Rng,
        *,
        patience: Patience,
        waiting_max: int,
        leads: Callable[[], bool],
    ) -> None:
        self._store = store
        self._events = events
        self._bus = bus
        self._outlet = outlet
        self._clock = clock
        self._rng = rng
        self._patience = patience
        self._waiting_max = waiting_max
        self._leads = leads
        self._hooks: dict[str, Webhook] = {}
        self._states: dict[str, HookState] = {}
        self._job_hooks: JobHooks | None = None
        self._position: str | None = None
        self._outbox = Outbox(_AT_ONCE_PER_HOOK)
        self._sending: set[asyncio.Task[None]] = set()
        self._ended: set[str] = set()  # since the last look at the store began
        self._news = asyncio.Event()
        self._refresh_at_s = float("-inf")
        self._broken = asyncio.Event()  # what came of a sending could not be kept: begin anew
        self._broken.set()
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("webhooks_news", self._listen, _TICK_S)
        self._rounds.go("webhooks", self._lead, _TICK_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    @property
    def leading(self) -> bool:
        """Whether it is at it, which lasts a moment longer than the lead."""
        return not self._broken.is_set()

    @property
    def waiting(self) -> int:
        return len(self._outbox)

    async def _listen(self) -> None:
        async for _ in self._bus.subscribe(TOPIC, self._news.set):
            self._news.set()

    # --- as long as we lead ------------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        if not self._leads():
            return
        self._begin_anew()
        try:
            while self._leads() and not self._broken.is_set():
                if self._news.is_set() or self._clock.monotonic_s() >= self._refresh_at_s:
                    await self._refresh()
                if self._position is None:
                    await wait_up_to(self._news, _TICK_S)
                else:
                    await self._read_on(self._position)
                self._dispatch()
        finally:
            self._broken.set()
            for task in list(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    def _begin_anew(self) -> None:
        self._outbox = Outbox(_AT_ONCE_PER_HOOK)
        self._refresh_at_s, self._position = float("-inf"), None
        self._broken.clear()

    async def _refresh(self) -> None:
        """Take up what people changed, and at first what an earlier life has left."""
        self._news.clear()
        self._ended.clear()
        self._refresh_at_s = self._clock.monotonic_s() + _REFRESH_S
        await self._refresh_hooks()
        places = [hook.since for hook in self._hooks.values()]
        if self._job_hooks is not None:
            places.append(self._job_hooks.since)
        if not places:
            self._position = None
        elif self._position is None:
            first = min(places, key=wanted.order)
            known = await self._store.position()
            # What lies before all of them is no loss: where nobody listens nobody reads on.
            self._position = max(first, known or first, key=wanted.order)
        for delivery in await self._store.pending():
            if not self._is_wanted(delivery):
                await self._store.remove(delivery.webhook_id)  # planned while it was being removed
            elif delivery.delivery_id not in self._ended:
                self._outbox.put(delivery)

    async def _refresh_hooks(self) -> None:
        self._hooks = {hook.webhook_id: hook for hook in await self._store.load()}
        self._states = await self._store.states()
        self._job_hooks = await self._store.job_hooks()
        for webhook_id in self._outbox.webhooks() - self._hooks.keys() - {OF_JOBS}:
            self._outbox.forget(webhook_id)

    def _is_wanted(self, delivery: Delivery) -> bool:
        return delivery.webhook_id == OF_JOBS or delivery.webhook_id in self._hooks

    # --- from the log to deliveries ----------------------------------------------------------------------------------

    async def _read_on(self, position: str) -> None:
        entries = await self._events.read(position, _BATCH, wait_s=self._wait_s())
        if not entries:
            return
        if any(entry.event.kind in wanted.EVENTS for entry in entries):
            await self._refresh_hooks()  # after the events: who was promised to be told of them is there by now
        deliveries = await self._gap(position) + await self._deliveries_of(entries)
        if not self._leads():
            return
        deliveries = await self._bounded(deliveries, entries[-1].id)
        await self._store.plan(deliveries, entries[-1].id)
        self._position = entries[-1].id
        for delivery in deliveries:
            self._outbox.put(delivery)

    def _wait_s(self) -> float:
        due_ms = self._outbox.next_due_ms(self._paused)
        if due_ms is None or len(self._sending) >= _AT_ONCE:
            return _TICK_S
        return min(_TICK_S, max(0.0, (due_ms - self._clock.now_ms()) / 1000))

    async def _deliveries_of(self, entries: Sequence[LoggedEvent]) -> list[Delivery]:
        hooks = [hook for hook in self._hooks.values() if hook.webhook_id not in self._paused]
        asked = [
            JobId(job_id)
            for entry in entries
            if wanted.needs_jobs(hooks, entry.event.kind) or self._may_name_addresses(entry)
            for job_id in entry.event.ids or (entry.event.key,)
        ]
        found: dict[str, Job | None] = {}
        for start in range(0, len(asked), _BATCH):
            some = asked[start : start + _BATCH]
            found |= dict(zip(some, await self._outlet.jobs.get(some), strict=True))
        now_ms = self._clock.now_ms()
        return [
            delivery
            for entry in entries
            for delivery in (
                *wanted.deliveries_of(entry, hooks, self._states, found.get, now_ms),
                *(wanted.own_deliveries_of(entry, self._job_hooks, found.get, now_ms) if self._job_hooks else ()),
            )
        ]

    def _may_name_addresses(self, entry: LoggedEvent) -> bool:
        return self._job_hooks is not None and entry.event.kind in wanted.JOB_EVENTS

    async def _gap(self, position: str) -> list[Delivery]:
        """Return what tells everybody that the log no longer reaches back to where we were, if so."""
        oldest = await self._events.oldest_id()
        if wanted.order(position) == (0,) or wanted.order(oldest) <= wanted.order(position):
            return []
        log.warning("webhook_events_missed", after=position, until=oldest)
        return [
            missed(hook.webhook_id, position, oldest, "the log was trimmed before it was read", self._clock.now_ms())
            for hook in self._hooks.values()
            if hook.webhook_id not in self._paused and wanted.order(hook.since) < wanted.order(oldest)
        ]

    async def _bounded(self, deliveries: list[Delivery], position: str) -> list[Delivery]:
        """Pause the webhooks for which too many wait, and leave out what is for them.

        Of the addresses of jobs there is none to be paused: what is too much has failed.
        """
        waiting = self._outbox.counts()
        own = [delivery for delivery in deliveries if delivery.webhook_id == OF_JOBS]
        if surplus := own[max(0, self._waiting_max - waiting[OF_JOBS]) :]:
            await self._give_up(surplus)
            deliveries = [delivery for delivery in deliveries if delivery not in surplus]
        for delivery in deliveries:
            waiting[delivery.webhook_id] += 1
        full = {webhook_id for webhook_id, count in waiting.items() if count > self._waiting_max}
        for webhook_id in full - self._paused:
            why = f"more than {self._waiting_max} deliveries wait (setting webhook_waiting_max)"
            state = self._states.get(webhook_id, HookState())
            await self._set_state(
                webhook_id, outcome.pause(state, why, self._clock.now_ms(), self._position or position)
            )
        return [delivery for delivery in deliveries if delivery.webhook_id not in full]

    async def _give_up(self, deliveries: Sequence[Delivery]) -> None:
        log.warning("job_webhooks_given_up", count=len(deliveries), waiting_max=self._waiting_max)
        why = f"{self._waiting_max} deliveries wait already (setting webhook_waiting_max)"
        now_ms = self._clock.now_ms()
        for delivery in deliveries:
            await self._store.settle(
                msgspec.structs.replace(delivery, status=DeliveryStatus.FAILED, ended_at_ms=now_ms, error=why)
            )

    # --- from deliveries to receivers --------------------------------------------------------------------------------

    @property
    def _paused(self) -> frozenset[str]:
        return frozenset(webhook_id for webhook_id, state in self._states.items() if state.paused)

    def _dispatch(self) -> None:
        if not self._leads():
            return
        for delivery in self._outbox.take(self._clock.now_ms(), _AT_ONCE - len(self._sending), self._paused):
            task = asyncio.create_task(self._send(delivery), name=f"webhook {delivery.delivery_id}")
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not self._broken.is_set() and not task.cancelled():
            self._dispatch()

    async def _send(self, delivery: Delivery) -> None:
        hook = self._hook_of(delivery)
        if hook is None:
            return
        try:
            answer = await self._outlet.send(hook, delivery)
            if not self._leads():
                return  # our successor has it on its list
            settled = outcome.settle(delivery, answer, self._patience, self._clock.now_ms(), self._rng)
            if self._is_wanted(delivery):  # else its webhook was removed meanwhile
                await self._keep(settled)
        except MusterError as error:
            log.warning("webhook_outcome_not_kept", delivery_id=delivery.delivery_id, error=error.message)
            self._broken.set()
        except Exception:
            log.exception("webhook_send_failed", delivery_id=delivery.delivery_id)
            self._broken.set()

    def _hook_of(self, delivery: Delivery) -> Webhook | None:
        if delivery.webhook_id == OF_JOBS and self._job_hooks is not None:
            return wanted.own_hook(self._job_hooks, delivery)
        return self._hooks.get(delivery.webhook_id)

    async def _keep(self, settled: Delivery) -> None:
        await self._store.settle(settled)
        if settled.status is not DeliveryStatus.PENDING:
            self._ended.add(settled.delivery_id)
        self._outbox.settle(settled)
        if settled.error is not None:
            log.info(
                "webhook_not_delivered",
                webhook_id=settled.webhook_id,
                delivery_id=settled.delivery_id,
                attempts=settled.attempts,
                error=settled.error,
            )
        if settled.webhook_id == OF_JOBS:
            return
        state = self._states.get(settled.webhook_id, HookState())
        changed = outcome.next_state(state, settled, self._patience, self._position or settled.event_id)
        if changed != state:
            await self._set_state(settled.webhook_id, changed)

    async def _set_state(self, webhook_id: str, state: HookState) -> None:
        was_paused = webhook_id in self._paused
        self._states[webhook_id] = state
        await self._store.set_state(webhook_id, state)
        if state.paused and not was_paused:
            log.warning("webhook_paused", webhook_id=webhook_id, why=state.paused)
            now_ms = self._clock.now_ms()
            await self._events.append(
                [Event(kind="webhook_paused", key=webhook_id, at_ms=now_ms, data={"why": state.paused})]
            )


def missed(webhook_id: str, after: str, until: str, why: str, now_ms: int) -> Delivery:
    """Return what tells a receiver to look for itself."""
    data: dict[str, object] = {"after_event_id": after, "until_event_id": until, "why": why}
    return wanted.new_delivery(
        webhook_id, wanted.MISSED, "events", until, occurred_at_ms=now_ms, now_ms=now_ms, data=data
    )
