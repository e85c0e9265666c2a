from collections import defaultdict, deque
from collections.abc import Sequence

from muster.domain.webhook import Delivery, DeliveryStatus, HookState, JobHooks, Webhook
from muster.stores import rules


class MemoryWebhooks:
    """A WebhookStore and a DeliveryStore."""

    def __init__(self) -> None:
        self._webhooks: dict[str, Webhook] = {}
        self._states: dict[str, HookState] = {}
        self._position: str | None = None
        self._job_hooks: JobHooks | None = None
        self._pending: dict[str, Delivery] = {}
        self._ended: defaultdict[str, deque[Delivery]] = defaultdict(lambda: deque(maxlen=rules.WEBHOOK_HISTORY_MAX))

    async def load(self) -> list[Webhook]:
        return sorted(self._webhooks.values(), key=lambda hook: (hook.created_at_ms, hook.webhook_id))

    async def add(self, webhook: Webhook) -> None:
        self._webhooks[webhook.webhook_id] = webhook

    async def remove(self, webhook_id: str) -> bool:
        known = self._webhooks.pop(webhook_id, None) is not None
        self._states.pop(webhook_id, None)
        self._ended.pop(webhook_id, None)
        self._pending = {key: one for key, one in self._pending.items() if one.webhook_id != webhook_id}
        return known

    async def states(self) -> dict[str, HookState]:
        return dict(self._states)

    async def set_state(self, webhook_id: str, state: HookState) -> None:
        self._states[webhook_id] = state

    async def position(self) -> str | None:
        return self._position

    async def job_hooks(self) -> JobHooks | None:
        return self._job_hooks

    async def begin_job_hooks(self, first: JobHooks) -> JobHooks:
        self._job_hooks = self._job_hooks or first
        return self._job_hooks

    async def plan(self, deliveries: Sequence[Delivery], position: str | None = None) -> None:
        self._pending |= {delivery.delivery_id: delivery for delivery in deliveries}
        if position is not None:
            self._position = position

    async def pending_count(self) -> int:
        return len(self._pending)

    async def pending(self) -> list[Delivery]:
        return sorted(self._pending.values(), key=rules.delivery_order)

    async def settle(self, delivery: Delivery) -> None:
        if delivery.status is DeliveryStatus.PENDING:
            self._pending[delivery.delivery_id] = delivery
            return
        self._ended[delivery.webhook_id].appendleft(delivery)
        self._pending.pop(delivery.delivery_id, None)

    async def history(self, webhook_id: str) -> list[Delivery]:
        return list(self._ended.get(webhook_id, ()))
