"""What the control plane tells of what it stands on, put together."""

import socket
from collections.abc import Callable, Sequence

from muster import __version__
from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.peers import Peers
from muster.control.leader import LEADER
from muster.control.system import GatewayReport, PlaneReport, SystemDesk
from muster.ports import BrokerProbe
from muster.stores.valkey import ValkeyStore
from muster.wire.peers import PlaneAbout


def about_us(started_at_ms: int, gateway_of: str = "") -> PlaneAbout:
    return PlaneAbout(
        version=__version__, hostname=socket.gethostname(), started_at_ms=started_at_ms, gateway_of=gateway_of
    )


def system_desk(
    fleet: Fleet,
    store: ValkeyStore,
    clock: Clock,
    peers: Peers,
    *,
    store_at: tuple[str, bool],
    broker: Callable[[], BrokerProbe | None],
    gateways: Callable[[], Sequence[GatewayReport]],
) -> SystemDesk:
    """`store_at` is the store's address without secrets, and whether it is the embedded one."""
    address, embedded = store_at
    return SystemDesk(
        fleet,
        store.probe,
        clock,
        address=address,
        embedded=embedded,
        planes=lambda: _planes(peers),
        leading=lambda: store.leases.holder(LEADER),
        broker=broker,
        gateways=gateways,
    )


def _planes(peers: Peers) -> Sequence[PlaneReport]:
    reports = []
    for plane_id in (peers.plane_id, *peers.planes):
        about = peers.about(plane_id)
        reports.append(
            PlaneReport(
                plane_id=plane_id,
                here=plane_id == peers.plane_id,
                version=about.version if about else None,
                hostname=about.hostname if about else None,
                started_at_ms=about.started_at_ms if about else None,
            )
        )
    return reports
