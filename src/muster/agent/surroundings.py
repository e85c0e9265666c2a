"""What all that runs on a node has around it."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from muster.agent.board import ServiceBoard
from muster.agent.outbox import Teller
from muster.clock import Clock, Rng
from muster.domain.trace import Tracer
from muster.ports import Connector, FileLink


class Surroundings(Struct, frozen=True, kw_only=True):
    """`address` is the host under which others reach this node, and where its own services listen."""

    address: str
    connectors: Mapping[str, Connector]
    board: ServiceBoard
    outbox: Teller
    clock: Clock
    rng: Rng
    look_every_s: float
    files: FileLink | None = None
    tracer: Tracer | None = None
    logs_dir: Path | None = None  # where workers keep what they say
