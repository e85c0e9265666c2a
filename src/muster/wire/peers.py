"""What control planes tell each other of nodes."""

from msgspec import Struct

from muster.domain.node import Node
from muster.ids import NodeId


class NodeGone(Struct, frozen=True, omit_defaults=True):
    """A node that is listed no more, by a word as new as `revision`."""

    node_id: NodeId
    boot_ids: tuple[str, ...] = ()  # that said goodbye; none: it was forgotten, and comes back when it is heard
    revision: int = 0


class PlaneAbout(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a control plane tells of itself; `gateway_of`: it is but a gateway process of that control plane."""

    version: str
    hostname: str
    started_at_ms: int
    gateway_of: str = ""


class NodeNews(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Records that were written, nodes whose records were deleted, and who says so."""

    saved: tuple[Node, ...] = ()
    gone: tuple[NodeGone, ...] = ()
    plane: PlaneAbout | None = None  # in beacons alone
