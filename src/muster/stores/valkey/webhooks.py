from collections.abc import Sequence
from typing import Any

import msgspec

from muster.domain.webhook import Delivery, DeliveryStatus, HookState, JobHooks, Webhook
from muster.stores import rules
from muster.stores.valkey.server import Server

_PER_CALL = 500

_webhook = msgspec.json.Decoder(Webhook)
_state = msgspec.json.Decoder(HookState)
_delivery = msgspec.json.Decoder(Delivery)
_job_hooks = msgspec.json.Decoder(JobHooks)


class ValkeyWebhooks:
    """A WebhookStore and a DeliveryStore.

    Each call writes first what must not be lost, so that a half of it is at worst told twice.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._webhooks = server.key("webhooks")
        self._states = server.key("webhooks:states")
        self._pending = server.key("webhooks:pending")
        self._position = server.key("webhooks:position")
        self._job_hooks = server.key("webhooks:jobs")

    async def load(self) -> list[Webhook]:
        found = [_webhook.decode(body) for body in await self._server.execute("HVALS", self._webhooks)]
        return sorted(found, key=lambda hook: (hook.created_at_ms, hook.webhook_id))

    async def add(self, webhook: Webhook) -> None:
        await self._server.execute("HSET", self._webhooks, webhook.webhook_id, msgspec.json.encode(webhook))

    async def remove(self, webhook_id: str) -> bool:
        removed = bool(await self._server.execute("HDEL", self._webhooks, webhook_id))
        await self._server.execute("HDEL", self._states, webhook_id)
        await self._server.execute("DEL", self._ended(webhook_id))
        its = [one.delivery_id for one in await self.pending() if one.webhook_id == webhook_id]
        for start in range(0, len(its), _PER_CALL):
            await self._server.execute("HDEL", self._pending, *its[start : start + _PER_CALL])
        return removed

    async def states(self) -> dict[str, HookState]:
        flat = await self._server.execute("HGETALL", self._states)
        return {key.decode(): _state.decode(body) for key, body in zip(flat[::2], flat[1::2], strict=True)}

    async def set_state(self, webhook_id: str, state: HookState) -> None:
        await self._server.execute("HSET", self._states, webhook_id, msgspec.json.encode(state))

    async def position(self) -> str | None:
        found = await self._server.execute("GET", self._position)
        return found.decode() if found is not None else None

    async def job_hooks(self) -> JobHooks | None:
        found = await self._server.execute("GET", self._job_hooks)
        return None if found is None else _job_hooks.decode(found)

    async def begin_job_hooks(self, first: JobHooks) -> JobHooks:
        await self._server.execute("SET", self._job_hooks, msgspec.json.encode(first), "NX")
        return await self.job_hooks() or first

    async def plan(self, deliveries: Sequence[Delivery], position: str | None = None) -> None:
        for start in range(0, len(deliveries), _PER_CALL):
            args: list[Any] = []
            for delivery in deliveries[start : start + _PER_CALL]:
                args += (delivery.delivery_id, msgspec.json.encode(delivery))
            await self._server.execute("HSET", self._pending, *args)
        if position is not None:
            await self._server.execute("SET", self._position, position)

    async def pending_count(self) -> int:
        return int(await self._server.execute("HLEN", self._pending))

    async def pending(self) -> list[Delivery]:
        found = [_delivery.decode(body) for body in await self._server.execute("HVALS", self._pending)]
        return sorted(found, key=rules.delivery_order)

    async def settle(self, delivery: Delivery) -> None:
        body = msgspec.json.encode(delivery)
        if delivery.status is DeliveryStatus.PENDING:
            await self._server.execute("HSET", self._pending, delivery.delivery_id, body)
            return
        ended = self._ended(delivery.webhook_id)
        await self._server.execute("LPUSH", ended, body)
        await self._server.execute("LTRIM", ended, 0, rules.WEBHOOK_HISTORY_MAX - 1)
        await self._server.execute("HDEL", self._pending, delivery.delivery_id)

    async def history(self, webhook_id: str) -> list[Delivery]:
        found = await self._server.execute("LRANGE", self._ended(webhook_id), 0, -1)
        return [_delivery.decode(body) for body in found]

    def _ended(self, webhook_id: str) -> str:
        return self._server.key(f"webhooks:ended:{webhook_id}")
