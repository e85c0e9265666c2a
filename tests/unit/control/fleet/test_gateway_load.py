import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from muster.access.book import ANYBODY
from muster.control.fleet.gateway_load import GatewayLoad
from muster.domain.service import Dialect
from muster.errors import StoreUnavailable
from muster.gateway.admission.admission import Admission
from muster.gateway.limits import GatewayLimits
from muster.gateway.routing.route import Router
from muster.gateway.side import Side
from muster.gateway.trust.quarantine import Change, Gravity, Now, Quarantine, Standing
from muster.placement.line import First, Turns
from muster.placement.scores import Strategy
from muster.ports import Bus
from muster.stores.memory import MemoryStore
from muster.system import SystemClock
from muster.wire.gateways import Taken, TrustNews
from tests.clocks import ManualClock
from tests.integration.gateway.fleet import CHAT, FleetTwin, worker
from tests.waiting import eventually

GATEWAYS = 4
SLOTS = 4
MODEL = CHAT.name


class Gateway:
    """A Side that says what a test sets."""

    def __init__(self, in_flight: dict[str, int], waiting: dict[str, First]) -> None:
        self.own = in_flight
        self.line = waiting
        self.others: dict[str, int] = {}
        self.rivals = 0
        self.first: Mapping[str, First] = {}
        self.had: dict[str, Turns] = {}
        self.heard_turns: list[Mapping[str, Turns]] = []
        self.tell: Callable[[], None] = lambda: None

    def in_flight(self) -> Mapping[str, int]:
        return self.own

    def waiting(self) -> Mapping[str, First]:
        return self.line

    def turns(self) -> Mapping[str, Turns]:
        had, self.had = self.had, {}
        return had

    def hear_turns(self, turns: Mapping[str, Turns]) -> None:
        self.heard_turns.append(turns)

    def on_change(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    def hear(self, changes: Mapping[str, int], first: Mapping[str, First]) -> None:
        for key, by in changes.items():
            self.others[key] = self.others.get(key, 0) + by
        self.first = first

    def settle(self, rivals: int) -> bool:
        self.rivals = rivals
        return False

    def trust_news(self, *, whole: bool) -> tuple[TrustNews, ...]:
        del whole
        return ()

    def hear_trust(self, news: TrustNews, *, from_first: bool) -> None:
        """Take it as it is."""


def all_but(number: int, sides: Sequence[object]) -> Callable[[], list[str]]:
    return lambda: [f"plane-{other}" for other in range(len(sides)) if other != number]


@asynccontextmanager
async def told(store: MemoryStore, clock: ManualClock | SystemClock, *sides: Gateway | Side) -> AsyncIterator[None]:
    async with AsyncExitStack() as running:
        for number, side in enumerate(sides):
            load = GatewayLoad(store.bus, clock, f"plane-{number}", beside=all_but(number, sides))
            load.join(side)
            await load.start()
            running.push_async_callback(load.stop)
        yield


async def test_gateways_count_together() -> None:
    clock, store = SystemClock(), MemoryStore(ManualClock())
    here = Gateway({"n1/llm": 1}, {"m": First(0, 1.0, clock.monotonic_s(), 0.0)})
    there = Gateway({"n1/llm": 2, "n2/llm": 1}, {"m": First(50, 3.5, clock.monotonic_s() - 60.0, 2.5)})
    loads = [GatewayLoad(store.bus, clock, plane_id, beside=lambda: ["another"]) for plane_id in ("one", "other")]
    one, other = loads
    for load, side in ((one, here), (other, there)):
        load.join(side)
        await load.start()
    try:
        await eventually(lambda: dict(one.in_flight()) == {"n1/llm": 3, "n2/llm": 1})
        await eventually(lambda: other.in_flight()["n1/llm"] == 3)
        assert (one.first_waiting("m"), other.first_waiting("m"), one.first_waiting("n")) == (50, 50, None)
        assert here.others == {"n1/llm": 2, "n2/llm": 1}
        first = here.first["m"]
        assert (first.priority, first.place, first.clock, first.since_s < clock.monotonic_s() - 59.0) == (
            50,
            3.5,
            2.5,
            True,
        )
        here.had = {"m": {(0, "anna"): 2}}
        here.own["n3/llm"] = 1
        here.tell()
        await eventually(lambda: other.in_flight()["n3/llm"] == 1)
        assert there.heard_turns == [{"m": {(0, "anna"): 2}}]
        here.own.clear()
        here.line.clear()
        here.tell()
        await eventually(lambda: other.in_flight()["n1/llm"] == 2)
        assert there.others == {"n1/llm": 0, "n3/llm": 0}
        assert not there.first
    finally:
        await one.stop()
        await other.stop()


async def test_what_a_gateway_had_that_is_heard_no_more_is_over() -> None:
    clock, store = ManualClock(), MemoryStore(ManualClock())
    here, there = Gateway({}, {}), Gateway({"n1/llm": 2}, {})
    async with told(store, clock, here):
        async with told(store, SystemClock(), Gateway({}, {}), there):
            await eventually(lambda: here.others == {"n1/llm": 2})
        clock.advance(3)
        await eventually(lambda: here.others == {"n1/llm": 0})


def routers() -> list[Router]:
    fleet = FleetTwin(worker("http://a", "a", slots=SLOTS), worker("http://b", "b", slots=GATEWAYS * SLOTS))
    clock = SystemClock()
    return [
        Router(fleet, strategy=Strategy.BALANCED, rng=random.Random(number), clock=clock) for number in range(GATEWAYS)
    ]


def burst(router: Router, node: str) -> int:
    """Reserve as many as it lets us; return how many."""
    taken = 0
    while router.reserve(MODEL, "completion", frozenset({Dialect.OPENAI}), frozenset({other(node)})) is not None:
        taken += 1
    return taken


def other(node: str) -> str:
    return "b/llama" if node == "a" else "a/llama"


def side_of(router: Router, quarantine: Quarantine | None = None) -> Side:
    limits, clock = GatewayLimits(), SystemClock()
    admission = Admission(router, limits, clock, who=lambda _: ANYBODY)
    return Side(router, admission, quarantine or Quarantine(limits, lambda _: None), clock)


async def test_a_burst_that_comes_to_all_at_once_fills_a_worker_once() -> None:
    alone = routers()
    assert sum(burst(router, "a") for router in alone) == GATEWAYS * SLOTS, "as long as they do not hear of each other"

    together = routers()
    everybody = frozenset({Dialect.OPENAI})
    async with told(MemoryStore(ManualClock()), SystemClock(), *map(side_of, together)):
        for router in together:
            assert router.reserve(MODEL, "completion", everybody, frozenset({"a/llama"})) is not None
        known = {"b/llama": GATEWAYS}
        await eventually(lambda: all((one.in_flight, one.rivals) == (known, GATEWAYS - 1) for one in together))

        assert [burst(router, "a") for router in together] == [1] * GATEWAYS, "not one of them can know of the others"
        taken = {"a/llama": GATEWAYS, "b/llama": GATEWAYS}
        await eventually(lambda: all(router.in_flight == taken for router in together))
        assert [burst(router, "a") for router in together] == [0] * GATEWAYS, "full is full"


async def test_who_shares_the_port_is_reckoned_with_before_it_is_heard_of() -> None:
    gateway = Gateway({}, {})
    store = MemoryStore(ManualClock())
    load = GatewayLoad(store.bus, SystemClock(), "first", beside=list, siblings=lambda: ["second", "third"])
    load.join(gateway)
    await load.start()
    await eventually(lambda: gateway.rivals == 2)
    await load.stop()


async def test_of_a_worker_with_one_slot_each_gateway_takes_it_at_most_once() -> None:
    fleet = FleetTwin(worker("http://a", "a", slots=1))
    together = [Router(fleet, strategy=Strategy.BALANCED, rng=random.Random(1), clock=SystemClock()) for _ in range(2)]
    first, second = together
    everybody = frozenset({Dialect.OPENAI})
    async with told(MemoryStore(ManualClock()), SystemClock(), *map(side_of, together)):
        candidate = first.reserve(MODEL, "completion", everybody)
        assert candidate is not None
        await eventually(lambda: second.in_flight == {"a/llama": 1})
        assert second.reserve(MODEL, "completion", everybody) is None
        first.release(candidate)
        await eventually(lambda: not second.in_flight)
        taken = second.reserve(MODEL, "completion", everybody)
        assert taken is not None
        second.release(taken)
        assert second.in_flight == {}, "an answer that was short is not waited for"


async def test_who_is_set_aside_by_one_is_set_aside_by_all_and_probed_by_one() -> None:
    changes: list[Change] = []
    limits, clock = GatewayLimits(), SystemClock()
    quarantines = [Quarantine(limits, changes.append) for _ in range(3)]
    here, *others = quarantines
    sides = [side_of(router, quarantine) for router, quarantine in zip(routers(), quarantines, strict=False)]

    def now(later_s: float = 0.0) -> Now:
        return Now(clock.monotonic_s() + later_s, clock.now_ms())

    async with told(MemoryStore(ManualClock()), clock, *sides):
        for _ in range(2):
            here.failed(("a/llama", MODEL), Gravity.SILENT, "idle_timeout", whole=False, began_s=now().s, now=now())
        await eventually(lambda: all(other.avoided(MODEL) == {"a/llama"} for other in others))
        assert [change.reason for change in changes] == ["idle_timeout"], "it is one fact"

        soon = now(limits.quarantine_s + 1).s
        assert not [probe for other in others for probe in other.due(soon)]
        (probe,) = here.due(soon)
        here.probed(probe, None, now())
        await eventually(lambda: not any(other.avoided(MODEL) for other in others))
        assert [case.standing for other in others for case in other.view(soon)] == [Standing.RETURNING] * 2

        for other in others:
            other.failed(("a/llama", MODEL), Gravity.FAILED, "lost", whole=False, began_s=now().s, now=now())
        await eventually(lambda: here.avoided(MODEL) == {"a/llama"})


async def test_who_has_rested_reckons_with_all_others_and_in_use_with_those_in_use() -> None:
    clock, here, there = ManualClock(), Gateway({}, {}), Gateway({}, {})
    async with told(MemoryStore(ManualClock()), clock, here, there):
        await eventually(lambda: (here.rivals, there.rivals) == (1, 1))
        here.own["n1/llm"] = 1
        here.tell()
        await eventually(lambda: here.rivals == 0)
        assert there.rivals == 1
        here.own.clear()
        clock.advance(61.0)
        await eventually(lambda: here.rivals == 1)


# --- what tokens may use ----------------------------------------------------------------------------------------------


class Tokens:
    """Limits of which a test says what was taken; it keeps what it hears."""

    def __init__(self) -> None:
        self.untold: dict[str, Taken] = {}
        self.known: dict[str, Taken] = {}
        self.heard: list[dict[str, Taken]] = []
        self.heard_missing: list[dict[str, Taken]] = []
        self.noted: Callable[[], None] = lambda: None

    def on_taken(self, listener: Callable[[], None]) -> None:
        self.noted = listener

    def take(self, requests: int) -> None:
        self.untold["t"] = Taken(requests=requests)
        self.noted()

    def taken(self) -> dict[str, Taken]:
        taken, self.untold = self.untold, {}
        return taken

    def missing(self) -> dict[str, Taken]:
        return dict(self.known)

    def hear(self, taken: Mapping[str, Taken], missing: Mapping[str, Taken]) -> None:
        if taken:
            self.heard.append(dict(taken))
        if missing:
            self.heard_missing.append(dict(missing))


@asynccontextmanager
async def sharing(bus: Bus, name: str, *others: str) -> AsyncIterator[Tokens]:
    load, tokens = GatewayLoad(bus, SystemClock(), name, beside=lambda: others), Tokens()
    load.join(Gateway({}, {}))
    load.share(tokens)
    await load.start()
    try:
        yield tokens
    finally:
        await load.stop()


async def test_what_tokens_take_is_told_once_to_all_others() -> None:
    bus = MemoryStore(ManualClock()).bus
    async with sharing(bus, "one", "other") as one, sharing(bus, "other", "one") as other:
        one.known = {"t": Taken(requests=1)}
        await eventually(lambda: other.heard_missing)
        one.take(3)
        await eventually(lambda: other.heard)
        one.take(2)
        await eventually(lambda: len(other.heard) > 1)
        assert other.heard == [{"t": Taken(requests=3)}, {"t": Taken(requests=2)}]
        assert one.heard == []


async def test_what_was_taken_while_nobody_was_there_is_not_told_as_if_it_were_now() -> None:
    bus = MemoryStore(ManualClock()).bus
    async with sharing(bus, "one") as one:
        one.take(3)
        await eventually(lambda: not one.untold)
        one.known = {"t": Taken(requests=2.5)}
        async with sharing(bus, "newcomer", "one") as newcomer:
            await eventually(lambda: newcomer.heard_missing)
            assert newcomer.heard_missing[0] == {"t": Taken(requests=2.5)}
            assert newcomer.heard == []


class Interrupted:
    """A Bus that ends what is heard when a test says so."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.cut = asyncio.Event()

    async def publish(self, topic: str, data: bytes) -> None:
        await self._bus.publish(topic, data)

    async def subscribe(self, topic: str) -> AsyncIterator[bytes]:
        async for data in self._bus.subscribe(topic):
            if self.cut.is_set():
                self.cut.clear()
                raise StoreUnavailable("gone")
            yield data


async def test_who_may_have_missed_something_is_told_what_is_missing() -> None:
    bus = MemoryStore(ManualClock()).bus
    broken = Interrupted(bus)
    async with sharing(broken, "one", "other") as one, sharing(bus, "other", "one") as other:
        other.known = {"t": Taken(requests=1)}
        await eventually(lambda: one.heard_missing)
        broken.cut.set()
        told = len(one.heard_missing)
        other.take(1)
        await eventually(lambda: len(one.heard_missing) > told)
