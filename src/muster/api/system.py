"""What the fleet stands on: store, broker, links and control planes."""

from litestar import get
from msgspec import Struct

from muster import __version__
from muster.api.plane import ThePlane
from muster.control.system import GatewayReport, LinkReport, PlaneReport, StoreReport
from muster.domain.standing import BrokerStanding


class SystemAnswer(Struct, frozen=True, kw_only=True):
    """Times in ms since the epoch. `broker` is null where none is named; what is not known is null, never 0.

    `gateway_processes` are those of the control plane that answers, beside itself (setting gateway_workers).
    """

    version: str
    store: StoreReport
    broker: BrokerStanding | None
    links: tuple[LinkReport, ...]
    control_planes: tuple[PlaneReport, ...]
    gateway_processes: tuple[GatewayReport, ...]
    node_versions: dict[str, int]
    suspects_itself: bool
    timestamp: int


@get("/api/v1/system", tags=["fleet"], summary="How the store, the broker and the control planes are")
async def system(plane: ThePlane) -> SystemAnswer:
    found = await plane.system.look()
    return SystemAnswer(
        version=__version__,
        store=found.store,
        broker=found.broker,
        links=found.links,
        control_planes=found.control_planes,
        gateway_processes=found.gateway_processes,
        node_versions=found.node_versions,
        suspects_itself=found.suspects_itself,
        timestamp=plane.clock.now_ms(),
    )
