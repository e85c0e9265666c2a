"""Webhooks put together: who makes them, who sends, over what."""

from collections.abc import Callable

from muster.api.webhooks import told_job
from muster.clock import Clock, Rng
from muster.control.webhooks.post import WebhookPost
from muster.control.webhooks.pump import Outlet, WebhookPump
from muster.control.webhooks.service import WebhookDesk
from muster.settings import Settings
from muster.stores.valkey import ValkeyStore
from muster.webhooks.outcome import Patience


class Webhooks:
    """A Lifecycle."""

    def __init__(
        self, settings: Settings, store: ValkeyStore, clock: Clock, rng: Rng, *, leads: Callable[[], bool]
    ) -> None:
        private = settings.webhook_private_addresses
        self._post = WebhookPost(timeout_s=settings.webhook_timeout_s, private=private)
        outlet = Outlet(jobs=store.jobs, post=self._post, show=told_job, clock=clock)
        self.desk = WebhookDesk(store.webhooks, store.log, store.bus, outlet, clock, rng, private=private)
        self._pump = WebhookPump(
            store.webhooks,
            store.log,
            store.bus,
            outlet,
            clock,
            rng,
            patience=Patience(
                attempts_max=settings.webhook_attempts_max,
                base_s=settings.webhook_retry_base_s,
                max_s=settings.webhook_retry_max_s,
            ),
            waiting_max=settings.webhook_waiting_max,
            leads=leads,
        )

    async def start(self) -> None:
        await self._post.start()
        await self._pump.start()

    async def stop(self) -> None:
        await self._pump.stop()
        await self._post.stop()
