"""What all gateways have in flight and jobs keep at work, who waits there, whom they have set aside, what tokens took.

Every quarter of a second one tells all that it has; in between, and at most every 20 ms, what has changed: and that
only while anybody else is heard.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Clock
from muster.errors import MusterError
from muster.placement.line import First, Turns
from muster.ports import Bus
from muster.rounds import wait_up_to
from muster.wire import decode, encode
from muster.wire.gateways import GatewayNews, Taken, TrustNews, TurnsNews

log = structlog.get_logger()

_TOPIC = "gateway-load"
_WHOLE_EVERY_S = 0.25
_CHANGES_EVERY_S = 0.02
_RETRY_S = 0.25
_COUNTS_S = 2.0  # what was not told again for so long is over
_RIVAL_S = 60.0  # who had anything to do within that time is reckoned with, and always who shares our port


class Side(Protocol):
    """The gateway of this process, as far as the others matter to it."""

    def in_flight(self) -> Mapping[str, int]: ...
    def waiting(self) -> Mapping[str, First]: ...
    def turns(self) -> Mapping[str, Turns]: ...
    def on_change(self, tell: Callable[[], None]) -> None: ...
    def hear(self, changes: Mapping[str, int], first: Mapping[str, First]) -> None: ...
    def hear_turns(self, turns: Mapping[str, Turns]) -> None: ...
    def settle(self, rivals: int) -> bool: ...
    def trust_news(self, *, whole: bool) -> tuple[TrustNews, ...]: ...
    def hear_trust(self, news: TrustNews, *, from_first: bool) -> None: ...


class _Other(Struct):
    """Another gateway, as last heard."""

    heard_s: float
    in_flight: dict[str, int]
    waiting: dict[str, First]
    jobs: dict[str, int]

    @property
    def taken(self) -> Counter[str]:
        """Return how many slots its requests and jobs take together."""
        return Counter(self.in_flight) + Counter(self.jobs)


class Limits(Protocol):
    """What tokens may use in a second or a minute, of all gateways together."""

    def on_taken(self, listener: Callable[[], None]) -> None: ...
    def taken(self) -> dict[str, Taken]: ...
    def missing(self) -> dict[str, Taken]: ...
    def hear(self, taken: Mapping[str, Taken], missing: Mapping[str, Taken]) -> None: ...


class Jobs(Protocol):
    """The jobs that this control plane has given to workers beside engines, by candidate."""

    counts: dict[str, int]

    def on_change(self, listener: Callable[[Mapping[str, int]], None]) -> None: ...


class GatewayLoad:
    """A Lifecycle. `beside` says who the other gateways are, `siblings` which of them share our port.

    Jobs take slots as requests do, and are told apart from them: whoever gives out jobs asks what people wait for.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        plane_id: str,
        beside: Callable[[], Collection[str]],
        siblings: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._plane_id = plane_id
        self._beside = beside
        self._siblings = siblings
        self._side: Side | None = None
        self._limits: Limits | None = None
        self._jobs: Mapping[str, int] = {}
        self._others: dict[str, _Other] = {}
        self._busy_s: dict[str, float] = {}  # when each of the others was last heard to have anything to do
        self._own_busy_s = float("-inf")
        self._asks = True  # what others know to be missing, until we hear ourselves ask: then we hear the answers, too
        self._asked = False
        self._changed = asyncio.Event()
        self._told = GatewayNews(plane_id)
        self._whole_s = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []

    def join(self, side: Side) -> None:
        self._side = side
        side.on_change(self._changed.set)
        self._pass_on(self._jobs)

    def share(self, limits: Limits) -> None:
        """Have what tokens take here and elsewhere count together."""
        self._limits = limits
        limits.on_taken(self._changed.set)

    def count_jobs(self, jobs: Jobs) -> None:
        """Have the gateways know at once which slots these take and give back."""
        self._jobs = jobs.counts
        jobs.on_change(self._jobs_changed)

    def _jobs_changed(self, changes: Mapping[str, int]) -> None:
        self._pass_on(changes)
        self._changed.set()

    def in_flight(self) -> Mapping[str, int]:
        total = Counter(self._side.in_flight() if self._side else {})
        for other in self._heard_lately():
            total.update(other.in_flight)
        return total

    def first_waiting(self, model: str) -> int | None:
        """Return the priority of whoever waits for a slot of this model and is next; None when nobody does."""
        lines = [self._side.waiting() if self._side else {}, *(other.waiting for other in self._heard_lately())]
        return max((line[model].priority for line in lines if model in line), default=None)

    def _heard_lately(self) -> list[_Other]:
        now_s = self._clock.monotonic_s()
        return [other for other in self._others.values() if now_s - other.heard_s < _COUNTS_S]

    async def start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(run(), name="gateway-load") for run in (self._tell, self._listen)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # --- telling -----------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            self._changed.clear()
            self._forget()
            unsettled = self._side is not None and self._side.settle(self._rivals())
            load = self._due()
            if load is not None:
                try:
                    await self._bus.publish(_TOPIC, encode(load))
                except MusterError as error:
                    self._whole_s = float("-inf")  # what got lost is told whole
                    log.debug("gateway_load_not_told", error=error.message)
            await asyncio.sleep(_CHANGES_EVERY_S)
            if not unsettled:
                await wait_up_to(self._changed, _WHOLE_EVERY_S)

    def _due(self) -> GatewayNews | None:
        """Return what is to be told now: nothing as long as there is nothing, but once that it is over."""
        if self._side is None:
            return None
        now_s = self._clock.monotonic_s()
        whole = now_s - self._whole_s >= _WHOLE_EVERY_S
        told, waiting, trust = self._told, self._side.waiting(), self._side.trust_news(whole=whole)
        load = GatewayNews(
            self._plane_id,
            dict(self._side.in_flight()),
            {model: first.priority for model, first in waiting.items()},
            {model: round((now_s - first.since_s) * 1000) for model, first in waiting.items()},
            dict(self._jobs),
            trust=trust,
            places={model: (first.place, first.clock) for model, first in waiting.items()},
            turns={model: _turns_news(turns) for model, turns in self._side.turns().items()},
            taken=self._limits.taken() if self._limits is not None else {},
            missing=self._limits.missing() if self._limits is not None and self._asked else {},
            asks=self._asks and self._limits is not None,
        )
        self._asked = False
        if load.in_flight or load.waiting:
            self._own_busy_s = now_s
        once = bool(trust or load.turns or load.taken or load.missing or load.asks)
        if whole:
            if not (once or any((load.in_flight, load.waiting, load.jobs, told.in_flight, told.waiting, told.jobs))):
                return None
            self._told, self._whole_s = load, now_s
            return load
        changes = _changes(told.in_flight, load.in_flight)
        if not (once or changes or load.places != told.places or load.jobs != told.jobs):
            return None
        if not (load.missing or self._beside()):
            return None
        self._told = load
        return replace(load, in_flight={key: load.in_flight.get(key, 0) for key in changes}, whole=False)

    def _rivals(self) -> int:
        """Count the others that are in use: what we do now they may do as well, before we hear of it.

        When we have rested ourselves, what comes to us may be the first that comes to all.
        """
        since_s = self._clock.monotonic_s() - _RIVAL_S
        self._busy_s = {key: at_s for key, at_s in self._busy_s.items() if at_s > since_s}
        rested = self._own_busy_s <= since_s
        return len({*self._busy_s, *self._siblings(), *(self._beside() if rested else ())})

    # --- hearing -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async for data in self._bus.subscribe(_TOPIC):
                    load = decode(data, GatewayNews)
                    if load.plane_id != self._plane_id:
                        self._take(load)
                    elif load.asks:
                        self._asks = False
            except MusterError as error:
                self._asks = True
                log.debug("gateway_load_not_heard", error=error.message)
            await asyncio.sleep(_RETRY_S)

    def _take(self, load: GatewayNews) -> None:
        now_s = self._clock.monotonic_s()
        known = self._others.get(load.plane_id)
        before = known.in_flight if known is not None else {}
        counts = load.in_flight if load.whole else before | load.in_flight
        now = {key: count for key, count in counts.items() if count}
        waiting = {model: _first(load, model, now_s) for model in load.waiting}
        other = self._others[load.plane_id] = _Other(now_s, now, waiting, load.jobs)
        if now or waiting:
            if load.plane_id not in self._busy_s:
                self._changed.set()  # our gateway is to know of a new rival at once
            self._busy_s[load.plane_id] = now_s
        if self._side is not None and load.turns:  # before a free slot is heard of
            self._side.hear_turns({model: _turns(news) for model, news in load.turns.items()})
        self._pass_on(_changes(known.taken if known is not None else {}, other.taken))
        if self._side is not None:
            for news in load.trust:
                self._side.hear_trust(news, from_first=load.plane_id < self._plane_id)
        if self._limits is not None:
            self._limits.hear(load.taken, load.missing)
        if load.asks:
            self._asked = True
            self._changed.set()

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        for key, other in list(self._others.items()):
            if now_s - other.heard_s >= _COUNTS_S:
                del self._others[key]
                self._pass_on(_changes(other.taken, {}))

    def _pass_on(self, changes: Mapping[str, int]) -> None:
        if self._side is not None:
            first: dict[str, First] = {}
            for other in self._heard_lately():
                for model, one in other.waiting.items():
                    known = first.get(model)
                    if known is None or one.goes_before(known):
                        first[model] = one
            self._side.hear(changes, first)


def _first(load: GatewayNews, model: str, now_s: float) -> First:
    place, clock = load.places.get(model, (0.0, 0.0))
    return First(load.waiting[model], place, now_s - load.waited_ms.get(model, 0) / 1000, clock)


def _turns_news(turns: Turns) -> tuple[TurnsNews, ...]:
    return tuple(TurnsNews(priority, who, count) for (priority, who), count in turns.items())


def _turns(news: Iterable[TurnsNews]) -> Turns:
    return {(one.priority, one.who): one.count for one in news}


def _changes(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each count has changed, of those that have."""
    keys = before.keys() | now.keys()
    return {key: by for key in keys if (by := now.get(key, 0) - before.get(key, 0))}
