from collections.abc import Mapping

from msgspec import Struct, field

from muster.domain.service import Dialect
from muster.ids import NodeId


class Wish(Struct, frozen=True, kw_only=True):
    """What a request asks of a worker. None and empty ask for nothing; `exclude` has keys of candidates tried."""

    model: str | None = None
    capability: str = "completion"
    dialects: frozenset[Dialect] = frozenset(Dialect)
    node_id: NodeId | None = None
    pool: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    min_memory_mb: int | None = None
    exclude: frozenset[str] = frozenset()
    quarantined: Mapping[str, str] = field(default_factory=dict)  # keys of candidates to avoid, and why
