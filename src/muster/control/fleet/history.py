"""The last quarter of an hour of every node, in memory, for the small curves: a ring of points for each.

Nothing of it is kept elsewhere: what is older, or from before a restart, is Prometheus' to know.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, field

from muster.clock import Clock
from muster.domain.node import Node
from muster.ids import NodeId
from muster.registry.book import NodeBook

EVERY_S = 10.0
KEPT_S = 900.0
_EARLY = 0.9  # a heartbeat that is a little early is not left out for it
_POINTS = math.ceil(KEPT_S / (EVERY_S * _EARLY))
_OF_NODE = ("cpu_percent", "memory_used_mb")
_OF_GPU = ("utilization_percent", "memory_used_mb", "temperature_c", "power_w")
_UNKNOWN = math.nan

Curve = list[float | None]


class Curves(Struct, frozen=True, kw_only=True):
    """Each figure at each of the times; None: unknown. GPUs are in the order of the node's."""

    at_ms: list[int] = field(default_factory=list)
    of_node: dict[str, Curve] = field(default_factory=dict)
    of_gpus: list[dict[str, Curve]] = field(default_factory=list)


class _Ring:
    """Points of as many figures as the node has; the oldest gives way. Four bytes a figure, eight a time."""

    __slots__ = ("at_ms", "figures", "next", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.at_ms = array("q")
        self.figures = array("f")
        self.next = 0

    @property
    def newest_ms(self) -> int:
        return self.at_ms[self.next - 1] if self.at_ms else 0

    def add(self, at_ms: int, figures: "array[float]") -> None:
        if len(self.at_ms) < _POINTS:
            self.at_ms.append(at_ms)
            self.figures.extend(figures)
        else:
            self.at_ms[self.next] = at_ms
            self.figures[self.next * self.width : (self.next + 1) * self.width] = figures
        self.next = (self.next + 1) % _POINTS

    def points(self, since_ms: int) -> Iterator[tuple[int, "array[float]"]]:
        count = len(self.at_ms)
        first = self.next if count == _POINTS else 0
        for place in (number % count for number in range(first, first + count)):
            if self.at_ms[place] >= since_ms:
                yield self.at_ms[place], self.figures[place * self.width : (place + 1) * self.width]


class History:
    """Takes a point of each node that was heard, at most every ten seconds; forgets it with the node."""

    def __init__(self, book: NodeBook, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._rings: dict[NodeId, _Ring] = {}

    def nodes_changed(self, node_ids: Iterable[NodeId]) -> None:
        for node_id in node_ids:
            node = self._book.get(node_id)
            if node is None:
                self._rings.pop(node_id, None)
            elif node.seq >= 0:
                self._note(node)

    def curves(self, node_id: NodeId) -> Curves:
        ring = self._rings.get(node_id)
        if ring is None:
            return Curves()
        points = list(ring.points(self._clock.now_ms() - round(KEPT_S * 1000)))
        rows = [figures for _, figures in points]
        gpus = range(len(_OF_NODE), ring.width, len(_OF_GPU))
        return Curves(
            at_ms=[at_ms for at_ms, _ in points],
            of_node=_curves(rows, 0, _OF_NODE),
            of_gpus=[_curves(rows, first, _OF_GPU) for first in gpus],
        )

    def bytes_kept(self) -> int:
        return sum(len(ring.at_ms) * 8 + len(ring.figures) * 4 for ring in self._rings.values())

    def _note(self, node: Node) -> None:
        ring = self._rings.get(node.node_id)
        width = len(_OF_NODE) + len(_OF_GPU) * len(node.gpus)
        if ring is None or ring.width != width:  # with other GPUs it is another machine
            ring = self._rings[node.node_id] = _Ring(width)
        if not 0 <= node.last_seen_ms - ring.newest_ms < EVERY_S * _EARLY * 1000:  # below 0: our clock was set
            ring.add(node.last_seen_ms, array("f", _figures(node)))


def _curves(rows: Sequence["array[float]"], first: int, names: Sequence[str]) -> dict[str, Curve]:
    return {name: [_known(row[place]) for row in rows] for place, name in enumerate(names, start=first)}


def _figures(node: Node) -> Iterator[float]:
    for name in _OF_NODE:
        yield _or_unknown(getattr(node.resources, name))
    for gpu in node.gpus:
        for name in _OF_GPU:
            yield _or_unknown(getattr(gpu, name))


def _or_unknown(figure: float | None) -> float:
    return _UNKNOWN if figure is None else figure


def _known(figure: float) -> float | None:
    """Undo what four bytes make of a decimal fraction."""
    return None if math.isnan(figure) else float(f"{figure:.7g}")
