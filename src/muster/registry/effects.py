"""What the book of nodes asks its shell to do, in this order."""

from msgspec import Struct

from muster.domain.event import Emit
from muster.domain.node import Node
from muster.ids import NodeId


class SaveNode(Struct, frozen=True):
    node: Node


class DropNode(Struct, frozen=True):
    node_id: NodeId


Effect = SaveNode | DropNode | Emit
