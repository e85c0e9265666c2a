"""Two control planes whose news of each other are lost, doubled and late: in the end they show the same."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from muster.registry.book import DropNode, Effect, NodeBook, SaveNode
from muster.registry.health import ALIVE
from muster.registry.lateness import Limits
from muster.wire import Heartbeat
from muster.wire.peers import NodeGone

INTERVAL_S = 10.0
NODES = [NodeId("gpu-1"), NodeId("gpu-2")]
SKEW_MS = (0, 7_000)  # the clocks of the two

nodes = st.sampled_from(NODES)
sides = st.sampled_from([0, 1])
words = st.sampled_from(sorted(ALIVE))


class Planes(RuleBasedStateMachine):
    """Each has its own book and clock; one store takes what each writes, and each hears of that, or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.books = [NodeBook(Limits(), forget_after_s=300.0) for _ in SKEW_MS]
        self.store: dict[NodeId, Node] = {}
        self.news: list[tuple[int, Node | NodeGone]] = []  # for whom
        self.boots = dict.fromkeys(NODES, 0)
        self.seqs = dict.fromkeys(NODES, 0)
        self.left: set[tuple[NodeId, int]] = set()

    def clock_ms(self, side: int) -> int:
        return self.now_ms + SKEW_MS[side]

    def carry_out(self, side: int, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveNode):
                self.store[effect.node.node_id] = effect.node
                self.news.append((1 - side, effect.node))
            elif isinstance(effect, DropNode):
                self.store.pop(effect.node_id, None)
                self.news.append((1 - side, self.books[side].gone(effect.node_id)))

    def deliver(self, index: int) -> None:
        side, news = self.news[index]
        book, now_ms = self.books[side], self.clock_ms(side)
        if isinstance(news, Node):
            self.carry_out(side, book.observed(news, now_ms))
        else:
            self.carry_out(side, book.observed_drop(news, now_ms))

    def beat(self, side: int, node_id: NodeId, status: Health = Health.HEALTHY) -> None:
        self.seqs[node_id] += 1
        message = Heartbeat(
            facts=NodeFacts(node_id=node_id),
            boot_id=f"boot-{self.boots[node_id]}",
            seq=self.seqs[node_id],
            heartbeat_interval_s=INTERVAL_S,
            status=status,
        )
        self.carry_out(side, self.books[side].heard(message, "http", self.clock_ms(side)).effects)

    def compare(self, side: int) -> None:
        book, now_ms = self.books[side], self.clock_ms(side)
        for node in list(self.store.values()):
            self.carry_out(side, book.observed(node, now_ms, stored=True))
        self.carry_out(side, book.not_stored(set(self.store), now_ms, now_ms))

    @rule(side=sides, node_id=nodes, status=words)
    def a_node_is_heard(self, side: int, node_id: NodeId, status: Health) -> None:
        self.beat(side, node_id, status)

    @rule(node_id=nodes)
    def a_node_boots(self, node_id: NodeId) -> None:
        self.boots[node_id] += 1
        self.seqs[node_id] = 0

    @rule(side=sides, node_id=nodes)
    def a_node_says_goodbye(self, side: int, node_id: NodeId) -> None:
        boot_id = f"boot-{self.boots[node_id]}"
        self.left.add((node_id, self.boots[node_id]))
        self.carry_out(side, self.books[side].deregistered(node_id, boot_id, "stopped", self.clock_ms(side)))

    @rule(side=sides, node_id=nodes, draining=st.booleans())
    def people_decide(self, side: int, node_id: NodeId, *, draining: bool) -> None:
        if self.books[side].get(node_id):
            self.carry_out(side, self.books[side].set_draining(node_id, self.clock_ms(side), draining=draining))

    @rule(side=sides, node_id=nodes)
    def people_forget(self, side: int, node_id: NodeId) -> None:
        if self.books[side].get(node_id):
            self.carry_out(side, self.books[side].forget(node_id, self.clock_ms(side)))

    @precondition(lambda self: self.news)
    @rule(data=st.data(), again=st.booleans())
    def news_arrive(self, data: st.DataObject, *, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.news) - 1))
        self.deliver(index)
        if not again:
            del self.news[index]

    @precondition(lambda self: self.news)
    @rule(data=st.data())
    def news_get_lost(self, data: st.DataObject) -> None:
        del self.news[data.draw(st.integers(0, len(self.news) - 1))]

    @rule(side=sides)
    def records_are_compared(self, side: int) -> None:
        self.compare(side)

    @rule(seconds=st.integers(1, 60), judge=sides)
    def time_passes(self, seconds: int, judge: int) -> None:
        self.now_ms += seconds * 1000
        for side, book in enumerate(self.books):
            self.carry_out(side, book.tick(self.clock_ms(side), judging=side == judge))

    @invariant()
    def no_book_makes_up_a_boot(self) -> None:
        for book in self.books:
            for node in book.nodes():
                number = int(node.boot_id.removeprefix("boot-"))
                assert number <= self.boots[node.node_id]

    def teardown(self) -> None:
        """Once news arrive again, and whoever lives goes on talking, all three are of one mind."""
        self.news.clear()
        for node_id in NODES:
            if (node_id, self.boots[node_id]) in self.left:
                self.a_node_boots(node_id)
        for _ in range(14):
            for side, node_id in enumerate(NODES):
                self.beat(side, node_id)
            while self.news:
                self.deliver(0)
                del self.news[0]
            for side in (0, 1):
                self.compare(side)
            self.time_passes(10, 0)
        self.news, late = [], self.news
        for side, news in late:
            self.news = [(side, news)]
            self.deliver(0)
        here, there = ({node.node_id: node for node in book.nodes()} for book in self.books)
        assert here == there == self.store
        assert {node_id: (node.health, node.boot_id) for node_id, node in here.items()} == {
            node_id: (Health.HEALTHY, f"boot-{self.boots[node_id]}") for node_id in NODES
        }


TestPlanes = Planes.TestCase
TestPlanes.settings = settings(max_examples=150, stateful_step_count=40)
