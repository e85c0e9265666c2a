"""Webhooks for people: made, listed, tried, continued, removed. Who sends is `pump.py`."""

import asyncio

from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.control.webhooks.of_jobs import JobAddresses
from muster.control.webhooks.pump import TOPIC, Outlet, WebhookRecords, missed
from muster.domain.event import Event
from muster.domain.webhook import OF_JOBS, Delivery, DeliveryStatus, HookState, Webhook
from muster.errors import Conflict, NotFound, QueueFull, WebhookNotFound
from muster.ids import base32
from muster.ports import Bus, EventLog
from muster.webhooks import outcome, wanted
from muster.webhooks.outcome import Patience

_WEBHOOKS_MAX = 100
_ONE_TRY = Patience(attempts_max=1)


class Hooked(Struct, frozen=True, kw_only=True):
    """A webhook, how it goes with it, and how many deliveries wait."""

    webhook: Webhook
    state: HookState
    waiting: int


class WebhookDesk:
    """`addresses` are those that jobs name for themselves."""

    def __init__(
        self,
        store: WebhookRecords,
        events: EventLog,
        bus: Bus,
        outlet: Outlet,
        clock: Clock,
        rng: Rng,
        *,
        private: bool,
    ) -> None:
        """`private` allows addresses of our own networks."""
        self._store = store
        self._events = events
        self._bus = bus
        self._outlet = outlet
        self._clock = clock
        self._rng = rng
        self._private = private
        self.addresses = JobAddresses(store, events, bus, rng, private=private)
        self._creating = asyncio.Lock()

    async def create(self, asked: wanted.Wanted, owner: str | None) -> Webhook:
        """Have it told of what happens from now on. Its secret is in what this returns."""
        async with self._creating:
            if len(await self._store.load()) >= _WEBHOOKS_MAX:
                raise QueueFull(f"there are {_WEBHOOKS_MAX} webhooks, which is as many as there may be: remove one")
            webhook = wanted.make_webhook(
                asked,
                since=await self._events.newest_id(),
                now_ms=self._clock.now_ms(),
                rng=self._rng,
                owner=owner,
                private=self._private,
            )
            await self._store.add(webhook)
        await self._tell("webhook_created", webhook.webhook_id)
        return webhook

    async def all(self) -> list[Hooked]:
        states = await self._store.states()
        pending = await self._store.pending()
        return [
            Hooked(
                webhook=webhook,
                state=states.get(webhook.webhook_id, HookState()),
                waiting=sum(one.webhook_id == webhook.webhook_id for one in pending),
            )
            for webhook in await self._store.load()
        ]

    async def waiting(self) -> int:
        """Count all deliveries that are still to be made."""
        return await self._store.pending_count()

    async def get(self, webhook_id: str) -> Hooked:
        found = next((one for one in await self.all() if one.webhook.webhook_id == webhook_id), None)
        if found is None:
            raise WebhookNotFound(f"no webhook {webhook_id!r}", field="webhook_id")
        return found

    async def remove(self, webhook_id: str) -> None:
        if webhook_id == OF_JOBS or not await self._store.remove(webhook_id):
            raise WebhookNotFound(f"no webhook {webhook_id!r}", field="webhook_id")
        await self._tell("webhook_removed", webhook_id)

    async def deliveries(self, webhook_id: str) -> list[Delivery]:
        """Return what waits, the next one first, and then what ended, the last one first.

        Under `jobs`: what the addresses are told that single jobs named.
        """
        if webhook_id != OF_JOBS:
            await self.get(webhook_id)
        waiting = [one for one in await self._store.pending() if one.webhook_id == webhook_id]
        return waiting + await self._store.history(webhook_id)

    async def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Have one that ended sent again, under its own id."""
        found = next((one for one in await self.deliveries(webhook_id) if one.delivery_id == delivery_id), None)
        if found is None:
            raise NotFound(f"no delivery {delivery_id!r} of {webhook_id} is kept", field="delivery_id")
        if found.status is DeliveryStatus.PENDING:
            raise Conflict(f"{delivery_id} waits to be sent already", field="delivery_id")
        again = replace(
            found, status=DeliveryStatus.PENDING, attempts=0, ended_at_ms=None, due_at_ms=self._clock.now_ms()
        )
        await self._store.plan([again])
        await self._bus.publish(TOPIC, b"")
        return again

    async def resume(self, webhook_id: str) -> Hooked:
        """Send again what waits; of what it was not told it hears that there was something."""
        hooked = await self.get(webhook_id)
        state = hooked.state
        if not state.paused:
            raise Conflict(f"webhook {webhook_id} is not paused", field="webhook_id")
        newest = await self._events.newest_id()
        if state.missed_after is not None and wanted.order(newest) > wanted.order(state.missed_after):
            now_ms = self._clock.now_ms()
            await self._store.plan([missed(webhook_id, state.missed_after, newest, state.paused, now_ms)])
        await self._store.set_state(webhook_id, HookState())
        await self._tell("webhook_resumed", webhook_id)
        return await self.get(webhook_id)

    async def test(self, webhook_id: str) -> Delivery:
        """Send something now, once, and return what came of it."""
        hook = (await self.get(webhook_id)).webhook
        now_ms = self._clock.now_ms()
        subject = f"test-{base32(self._rng.getrandbits(50), 10)}"
        delivery = wanted.new_delivery(
            webhook_id,
            wanted.TEST,
            subject,
            "0",
            occurred_at_ms=now_ms,
            now_ms=now_ms,
            data={"text": "This is a test: nothing happened."},
        )
        answer = await self._outlet.send(hook, delivery)
        settled = outcome.settle(delivery, answer, _ONE_TRY, self._clock.now_ms(), self._rng)
        await self._store.settle(settled)
        return settled

    async def _tell(self, kind: str, webhook_id: str) -> None:
        await self._events.append([Event(kind=kind, key=webhook_id, at_ms=self._clock.now_ms())])
        await self._bus.publish(TOPIC, b"")
