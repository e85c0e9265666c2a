"""What the book of nodes asks its shell to do, in this order."""

from msgspec import Struct

from muster.domain.event import Emit
from muster.domain.node import Node
from muster.ids import NodeId


class SaveNode(Struct, frozen=True):
    node: Node


class DropNode(Struct, frozen=True):
    node_id: NodeId


class ShowNode(Struct, frozen=True):
    """The record changed, or is gone, by another control plane's word, which has written it down: show it."""

    node_id: NodeId


Effect = SaveNode | DropNode | ShowNode | Emit
