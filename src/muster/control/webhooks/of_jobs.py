"""Addresses that single jobs name, to be told of their own end."""

from collections.abc import Sequence

from muster.clock import Rng
from muster.control.webhooks.pump import TOPIC
from muster.domain.job import JobSpec
from muster.domain.webhook import JobHooks
from muster.ports import Bus, DeliveryStore, EventLog
from muster.webhooks import wanted


class JobAddresses:
    """Where no job ever named one, nobody reads the log for them: the first one says from where on."""

    def __init__(self, store: DeliveryStore, events: EventLog, bus: Bus, rng: Rng, *, private: bool) -> None:
        """`private` allows addresses of our own networks."""
        self._store = store
        self._events = events
        self._bus = bus
        self._rng = rng
        self._private = private
        self._known: JobHooks | None = None

    def check(self, spec: JobSpec) -> None:
        """Raise InvalidInput for an address that cannot be."""
        if spec.webhook_url is not None:
            wanted.check_url(spec.webhook_url, private=self._private, field="webhook_url")

    async def expect(self, specs: Sequence[JobSpec]) -> None:
        """Have the log read for these jobs; to be called before they are stored."""
        if self._known is None and any(spec.webhook_url is not None for spec in specs):
            await self._hooks()

    async def secret(self, owner: str | None) -> str:
        """Return what deliveries to the addresses of somebody's jobs are signed with."""
        return wanted.secret_of(await self._hooks(), owner)

    async def _hooks(self) -> JobHooks:
        if self._known is None:
            first = JobHooks(since=await self._events.newest_id(), secret=wanted.new_secret(self._rng))
            self._known = await self._store.begin_job_hooks(first)
            await self._bus.publish(TOPIC, b"")
        return self._known
