"""What the fleet stands on, for people who look: the store, the broker, the links and the control planes.

Every part is asked with a deadline of its own, and one that is away is told with what can be done about it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.domain.standing import BrokerStanding, StoreStanding
from muster.errors import MusterError, StoreUnavailable
from muster.ports import BrokerProbe, StoreProbe

_LOOK_S = 2.0
_KEPT_S = 0.5  # many may look at once: the store is asked for all of them together
_EMBEDDED = "it is started again by itself; its log is valkey/valkey.log in the data directory"
_OUTSIDE = "see whether it runs and MUSTER_VALKEY_URL leads there; nothing needs a restart here"

T = TypeVar("T")
Leading = Callable[[], Awaitable[str | None]]


class StoreReport(Struct, frozen=True, kw_only=True):
    """`standing` is null while it does not answer; `error` and `next_step` say why."""

    address: str
    embedded: bool
    standing: StoreStanding | None
    error: str | None
    next_step: str | None


class LinkReport(Struct, frozen=True, kw_only=True):
    """One way of nodes to the control plane: how many last came by it, and how many of them are connected."""

    name: str
    nodes: int
    connected: int


class PlaneReport(Struct, frozen=True, kw_only=True):
    """`here` is the control plane that answers. `leads` is null while the store does not say who does."""

    plane_id: str
    here: bool
    leads: bool | None = None
    version: str | None
    hostname: str | None
    started_at_ms: int | None


class GatewayReport(Struct, frozen=True, kw_only=True):
    """A process of this control plane that has the gateway alone; `pid` is null while it does not serve."""

    number: int
    pid: int | None
    restarts: int
    memory_mb: float
    connections: int
    in_flight: int


class SystemReport(Struct, frozen=True, kw_only=True):
    """`broker` is null where none is named. `node_versions` counts nodes by what runs on them."""

    store: StoreReport
    broker: BrokerStanding | None
    links: tuple[LinkReport, ...]
    control_planes: tuple[PlaneReport, ...]
    gateway_processes: tuple[GatewayReport, ...]
    node_versions: dict[str, int]
    suspects_itself: bool


class SystemDesk:
    """`planes` are those that are heard, this one first; `leading` asks the store which of them leads."""

    def __init__(
        self,
        fleet: Fleet,
        store: StoreProbe,
        clock: Clock,
        *,
        address: str,
        embedded: bool,
        planes: Callable[[], Sequence[PlaneReport]],
        leading: Leading,
        broker: Callable[[], BrokerProbe | None] = lambda: None,
        gateways: Callable[[], Sequence[GatewayReport]] = tuple,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._address = address
        self._embedded = embedded
        self._planes = planes
        self._leading = leading
        self._broker = broker
        self._gateways = gateways
        self._looking = asyncio.Lock()
        self._latest: tuple[float, SystemReport] | None = None

    async def look(self) -> SystemReport:
        async with self._looking:
            if self._latest is None or self._clock.monotonic_s() - self._latest[0] > _KEPT_S:
                report = await self._look()
                self._latest = (self._clock.monotonic_s(), report)
            return self._latest[1]

    async def _look(self) -> SystemReport:
        store, planes, broker = await asyncio.gather(self._look_at_store(), self._look_at_planes(), self._ask_broker())
        nodes = self._fleet.nodes()
        on_link, connected = Counter(node.link for node in nodes), Counter(n.link for n in nodes if n.connected)
        return SystemReport(
            store=store,
            broker=broker,
            links=tuple(
                LinkReport(name=link, nodes=on_link[link], connected=connected[link]) for link in sorted(on_link)
            ),
            control_planes=planes,
            gateway_processes=tuple(self._gateways()),
            node_versions=dict(sorted(Counter(node.facts.version or "unknown" for node in nodes).items())),
            suspects_itself=self._fleet.book.suspects_itself,
        )

    async def _look_at_store(self) -> StoreReport:
        standing: StoreStanding | None = None
        error: str | None = None
        try:
            standing = await _in_time(self._store.standing())
        except MusterError as problem:
            error = problem.message
        next_step = None if error is None else _EMBEDDED if self._embedded else _OUTSIDE
        return StoreReport(
            address=self._address, embedded=self._embedded, standing=standing, error=error, next_step=next_step
        )

    async def _look_at_planes(self) -> tuple[PlaneReport, ...]:
        planes = self._planes()
        try:
            leading = await _in_time(self._leading())
        except MusterError:
            return tuple(planes)  # what the store says of itself tells why
        return tuple(_led(plane, leading) for plane in planes)

    async def _ask_broker(self) -> BrokerStanding | None:
        broker = self._broker()
        return None if broker is None else await broker.standing()


async def _in_time(answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_LOOK_S):
            return await answer
    except TimeoutError:
        raise StoreUnavailable(f"the store did not answer within {_LOOK_S:g} s") from None


def _led(plane: PlaneReport, leading: str | None) -> PlaneReport:
    return structs.replace(plane, leads=plane.plane_id == leading)
