"""The fleet as this control plane knows it: the registry's book, its effects carried out, the view for placement."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, eq

from msgspec import Struct

from muster.clock import Clock
from muster.control.fleet.candidates import candidates_of
from muster.control.recorder import Recorder
from muster.domain.gpu import Gpu
from muster.domain.node import Node
from muster.errors import NodeNotFound
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.registry.book import DropNode, Effect, Emit, NodeBook, SaveNode, ShowNode
from muster.wire.peers import NodeNews

_BY_ID = attrgetter("facts.node_id")
_GPU_AS_PLACED = attrgetter("index", "memory_total_mb", "memory_used_mb", "owners", "out_of_service")

NodesChanged = Callable[[set[NodeId]], None]
DeafFor = Callable[[], float | None]


class _Shown(Struct, frozen=True):
    node: Node
    late: bool


def _looks_the_same(node: Node, before: Node) -> bool:
    """Tell, without making candidates, whether they would be the same: nearly every heartbeat changes none of it."""
    return (
        node.health is before.health
        and node.connected is before.connected
        and node.draining is before.draining
        and node.drained_services == before.drained_services
        and node.services == before.services
        and _places_the_same(node.gpus, before.gpus)
        and node.facts == before.facts
    )


def _places_the_same(gpus: Sequence[Gpu], before: Sequence[Gpu]) -> bool:
    """Leave out loads and temperatures: they move all the time, and placement does not look at them."""
    return gpus is before or (
        len(gpus) == len(before) and all(map(eq, map(_GPU_AS_PLACED, gpus), map(_GPU_AS_PLACED, before)))
    )


class Fleet:
    """A FleetView. Its record is a mirror of the store that heartbeats keep true."""

    def __init__(self, book: NodeBook, recorder: Recorder, clock: Clock) -> None:
        self._book = book
        self._recorder = recorder
        self._clock = clock
        self._candidates: dict[NodeId, tuple[Candidate, ...]] = {}
        self._shown: dict[NodeId, _Shown] = {}  # what they were made of
        self._flat: tuple[Candidate, ...] | None = None
        self._version = 0
        self._listeners: list[NodesChanged] = []
        self._deaf_for_s: DeafFor = lambda: None

    @property
    def book(self) -> NodeBook:
        return self._book

    @property
    def version(self) -> int:
        return self._version

    def candidates(self) -> Sequence[Candidate]:
        if self._flat is None:
            self._flat = tuple(candidate for group in self._candidates.values() for candidate in group)
        return self._flat

    def candidates_at(self, node_id: NodeId) -> Sequence[Candidate]:
        return self._candidates.get(node_id, ())

    def nodes(self) -> list[Node]:
        return sorted(self._book.nodes(), key=_BY_ID)

    def node(self, node_id: NodeId) -> Node:
        node = self._book.get(node_id)
        if node is None:
            raise NodeNotFound(f"no node {node_id!r} in this fleet", field="node_id")
        return node

    def is_late(self, node: Node) -> bool:
        return self._book.is_late(node, self._clock.now_ms())

    def on_change(self, listener: NodesChanged) -> None:
        self._listeners.append(listener)

    def hears_by(self, deaf_for_s: DeafFor) -> None:
        """Ask there for how long we have not heard what other control planes hear; None: we do."""
        self._deaf_for_s = deaf_for_s

    def hears_again(self) -> None:
        self._book.hears_again(self._clock.now_ms())

    @property
    def judges(self) -> bool:
        """Whether silence means anything at present."""
        return self._book.hears and not self._book.suspects_itself

    def load(self, nodes: Iterable[Node]) -> None:
        self._book.load(list(nodes), self._clock.now_ms())
        for node in self._book.nodes():
            self._refresh(node.node_id)

    def carry_out(self, effects: Iterable[Effect]) -> None:
        changed: set[NodeId] = set()
        for effect in effects:
            match effect:
                case SaveNode(node=node):
                    self._recorder.save(node)
                    changed.add(node.node_id)
                case DropNode(node_id=node_id):
                    self._recorder.drop(self._book.gone(node_id))
                    changed.add(node_id)
                case ShowNode(node_id=node_id):
                    self._recorder.correct(node_id, self._book.get(node_id))
                    changed.add(node_id)
                case Emit(event=event):
                    self._recorder.emit([event])
        for node_id in changed:
            self._refresh(node_id)
        if changed:
            for listener in self._listeners:
                listener(changed)

    def take_in(self, news: NodeNews) -> None:
        """Know what another control plane has heard."""
        now_ms = self._clock.now_ms()
        effects: list[Effect] = []
        for gone in news.gone:
            effects += self._book.observed_drop(gone, now_ms)
        for node in news.saved:
            effects += self._book.observed(node, now_ms)
        self.carry_out(effects)

    def compare(self, stored: Sequence[Node], asked_ms: int) -> None:
        """Make our records and those that the store had at `asked_ms` the same, whoever has missed something."""
        now_ms = self._clock.now_ms()
        effects: list[Effect] = []
        for node in stored:
            effects += self._book.observed(node, now_ms, stored=True)
        effects += self._book.not_stored({node.node_id for node in stored}, asked_ms, now_ms)
        self.carry_out(effects)

    def tick(self, *, judging: bool = True) -> None:
        """Look for silence: nodes that went late take no new work at once, stale and dead ones change state.

        Without `judging` another control plane says who is stale or dead.
        """
        now_ms = self._clock.now_ms()
        if (deaf_for_s := self._deaf_for_s()) is not None:
            self._book.deafened(now_ms - round(deaf_for_s * 1000))
        self.carry_out(self._book.tick(now_ms, judging=judging))
        for node in self._book.nodes():
            shown = self._candidates.get(node.node_id)
            if shown and shown[0].late != self.is_late(node):
                self._refresh(node.node_id)

    def _refresh(self, node_id: NodeId) -> None:
        """Placement hears only of changes that it could notice."""
        node = self._book.get(node_id)
        shown = self._shown.get(node_id)
        late = node is not None and self.is_late(node)
        if node is not None and shown is not None and shown.late is late and _looks_the_same(node, shown.node):
            return
        if node is None:
            self._shown.pop(node_id, None)
        else:
            self._shown[node_id] = _Shown(node, late)
        now = candidates_of(node, late=late) if node else ()
        if now == self._candidates.get(node_id, ()):
            return
        if now:
            self._candidates[node_id] = now
        else:
            self._candidates.pop(node_id, None)
        self._flat = None
        self._version += 1
