"""What all gateways have in flight, and who waits: each control plane tells the others what its own has."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct

from muster.clock import Clock
from muster.errors import MusterError
from muster.ports import Bus
from muster.wire import decode, encode

log = structlog.get_logger()

_TOPIC = "gateway-load"
_EVERY_S = 0.25
_COUNTS_S = 2.0  # what was not told again for so long is over


class _Load(Struct, frozen=True):
    plane_id: str
    in_flight: dict[str, int]  # by candidate
    waiting: dict[str, int] = {}  # the priority of whoever is next in the line of each model


class GatewayLoad:
    """A Lifecycle."""

    def __init__(
        self,
        own: Callable[[], Mapping[str, int]],
        own_waiting: Callable[[], Mapping[str, int]],
        bus: Bus,
        clock: Clock,
        plane_id: str,
    ) -> None:
        self._own = own
        self._own_waiting = own_waiting
        self._bus = bus
        self._clock = clock
        self._plane_id = plane_id
        self._others: dict[str, tuple[float, _Load]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def in_flight(self) -> Mapping[str, int]:
        total = Counter(self._own())
        for load in self._told_lately():
            total.update(load.in_flight)
        return total

    def first_waiting(self, model: str) -> int | None:
        """Return the priority of whoever waits for a slot of this model and is next; None when nobody does."""
        waiting = [load.waiting.get(model) for load in self._told_lately()]
        return max(
            (priority for priority in (self._own_waiting().get(model), *waiting) if priority is not None), default=None
        )

    def _told_lately(self) -> list[_Load]:
        now_s = self._clock.monotonic_s()
        return [load for told_s, load in self._others.values() if now_s - told_s < _COUNTS_S]

    async def start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(run(), name="gateway-load") for run in (self._tell, self._listen)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _tell(self) -> None:
        """Say nothing as long as there is nothing, but once that it is over."""
        told = _Load(self._plane_id, {})
        while True:
            load = _Load(self._plane_id, dict(self._own()), dict(self._own_waiting()))
            if load.in_flight or told.in_flight:
                try:
                    await self._bus.publish(_TOPIC, encode(load))
                    told = load
                except MusterError as error:
                    log.debug("gateway_load_not_told", error=error.message)
            await asyncio.sleep(_EVERY_S)

    async def _listen(self) -> None:
        while True:
            try:
                async for data in self._bus.subscribe(_TOPIC):
                    load = decode(data, _Load)
                    if load.plane_id != self._plane_id:
                        self._others[load.plane_id] = (self._clock.monotonic_s(), load)
                        self._forget()
            except MusterError as error:
                log.debug("gateway_load_not_heard", error=error.message)
            await asyncio.sleep(_EVERY_S)

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        self._others = {key: entry for key, entry in self._others.items() if now_s - entry[0] < _COUNTS_S}
