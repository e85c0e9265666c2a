"""What all gateways have in flight, by candidate: each control plane tells the others what its own has."""

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
    in_flight: dict[str, int]


class GatewayLoad:
    """A Lifecycle."""

    def __init__(self, own: Callable[[], Mapping[str, int]], bus: Bus, clock: Clock, plane_id: str) -> None:
        self._own = own
        self._bus = bus
        self._clock = clock
        self._plane_id = plane_id
        self._others: dict[str, tuple[float, dict[str, int]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def in_flight(self) -> Mapping[str, int]:
        total = Counter(self._own())
        now_s = self._clock.monotonic_s()
        for told_s, load in self._others.values():
            if now_s - told_s < _COUNTS_S:
                total.update(load)
        return total

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
        told: Mapping[str, int] = {}
        while True:
            load = dict(self._own())
            if load or told:
                try:
                    await self._bus.publish(_TOPIC, encode(_Load(self._plane_id, load)))
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
                        self._others[load.plane_id] = (self._clock.monotonic_s(), load.in_flight)
                        self._forget()
            except MusterError as error:
                log.debug("gateway_load_not_heard", error=error.message)
            await asyncio.sleep(_EVERY_S)

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        self._others = {key: entry for key, entry in self._others.items() if now_s - entry[0] < _COUNTS_S}
