"""Whatever arrives, in whatever order: the book of nodes keeps its word."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from muster.registry.book import DropNode, Effect, NodeBook, SaveNode, Verdict
from muster.registry.health import ALIVE
from muster.registry.lateness import Limits
from muster.wire import Heartbeat, Registration

INTERVAL_S = 10.0
NODES = [NodeId("gpu-1"), NodeId("gpu-2")]
RANK = [Health.DEAD, Health.STALE, Health.REGISTERING, Health.UNHEALTHY, Health.DEGRADED, Health.HEALTHY]

nodes = st.sampled_from(NODES)
words = st.sampled_from(sorted(ALIVE))


class Fleet(RuleBasedStateMachine):
    """Agents that boot and talk, a network that keeps every message for later, and a control plane that restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.book = NodeBook(Limits(), forget_after_s=200.0)
        self.store: dict[NodeId, Node] = {}
        self.boots = dict.fromkeys(NODES, 0)
        self.seqs = dict.fromkeys(NODES, 0)
        self.sent: list[Heartbeat | Registration] = []
        self.newest_word: dict[NodeId, Health] = {}
        self.seen_seq: dict[tuple[NodeId, str], int] = {}

    def boot_id(self, node_id: NodeId) -> str:
        return f"boot-{self.boots[node_id]}"

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveNode):
                self.store[effect.node.node_id] = effect.node
            elif isinstance(effect, DropNode):
                self.store.pop(effect.node_id, None)
                self.newest_word.pop(effect.node_id, None)
                self.seen_seq = {known: seq for known, seq in self.seen_seq.items() if known[0] != effect.node_id}

    def deliver(self, message: Heartbeat | Registration) -> None:
        if isinstance(message, Registration):
            self.carry_out(self.book.registered(message, "http", self.now_ms))
            return
        before = self.store.get(message.facts.node_id)
        heard = self.book.heard(message, "http", self.now_ms)
        self.carry_out(heard.effects)
        if heard.verdict in (Verdict.KNOWN, Verdict.CREATED):
            node_id = message.facts.node_id
            assert self.store[node_id].health is message.status
            self.newest_word[node_id] = message.status
            if before and message.boot_id in (before.boot_id, *before.retired_boot_ids):
                assert message.seq > self.seen_seq.get((node_id, message.boot_id), -1)
            self.seen_seq[node_id, message.boot_id] = message.seq

    def heartbeat(self, node_id: NodeId, status: Health) -> Heartbeat:
        self.seqs[node_id] += 1
        return Heartbeat(
            facts=NodeFacts(node_id=node_id),
            boot_id=self.boot_id(node_id),
            seq=self.seqs[node_id],
            heartbeat_interval_s=INTERVAL_S,
            status=status,
        )

    @rule(node_id=nodes)
    def agent_boots(self, node_id: NodeId) -> None:
        self.boots[node_id] += 1
        self.seqs[node_id] = 0
        self.sent.append(
            Registration(
                facts=NodeFacts(node_id=node_id), boot_id=self.boot_id(node_id), heartbeat_interval_s=INTERVAL_S
            )
        )

    @rule(node_id=nodes, status=words)
    def agent_is_heard(self, node_id: NodeId, status: Health) -> None:
        message = self.heartbeat(node_id, status)
        self.sent.append(message)
        self.deliver(message)

    @rule(node_id=nodes, status=words)
    def agent_speaks_into_a_cut(self, node_id: NodeId, status: Health) -> None:
        self.sent.append(self.heartbeat(node_id, status))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def network_delivers_something_sent_before(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(self.sent)))

    @rule(node_id=nodes)
    def agent_stops_cleanly(self, node_id: NodeId) -> None:
        effects = self.book.deregistered(node_id, self.boot_id(node_id), "stopped", self.now_ms)
        self.carry_out(effects)
        assert not effects or self.book.get(node_id) is None

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        self.carry_out(self.book.tick(self.now_ms))

    @rule()
    def control_plane_restarts(self) -> None:
        self.book = NodeBook(Limits(), forget_after_s=200.0)
        self.book.load(self.store.values(), self.now_ms)
        self.seen_seq = {(node.node_id, node.boot_id): node.seq for node in self.store.values()}  # all that is stored
        before = dict(self.store)
        self.carry_out(self.book.tick(self.now_ms))
        assert self.store == before

    @invariant()
    def each_id_has_one_record_and_the_store_mirrors_the_book(self) -> None:
        assert {node.node_id: node for node in self.book.nodes()} == self.store
        assert len(self.book.nodes()) == len(self.store)

    @invariant()
    def no_node_is_shown_healthier_than_its_newest_word(self) -> None:
        for node_id, node in self.store.items():
            word = self.newest_word.get(node_id, Health.REGISTERING)
            assert RANK.index(node.health) <= RANK.index(word), (node, word)

    @invariant()
    def the_dead_are_disconnected(self) -> None:
        assert not any(node.connected for node in self.store.values() if node.health is Health.DEAD)

    def teardown(self) -> None:
        """After all of it, whoever lives and is heard again is healthy, under its own boot, with nothing restarted."""
        for _ in range(12):
            for node_id in NODES:
                self.deliver(self.heartbeat(node_id, Health.HEALTHY))
            self.time_passes(round(INTERVAL_S))
        assert {node_id: (node.health, node.boot_id) for node_id, node in self.store.items()} == {
            node_id: (Health.HEALTHY, self.boot_id(node_id)) for node_id in NODES
        }


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=200, stateful_step_count=40)


def test_a_backlog_delivered_in_any_order_leaves_the_newest_word() -> None:
    rng = random.Random(7)
    for _ in range(200):
        messages = [
            Heartbeat(
                facts=NodeFacts(node_id=NODES[0]),
                boot_id="boot",
                seq=seq,
                heartbeat_interval_s=INTERVAL_S,
                status=rng.choice(sorted(ALIVE)),
            )
            for seq in range(6)
        ]
        book = NodeBook(Limits())
        for message in rng.sample(messages * 2, 12):
            book.heard(message, "http", 0)
        (node,) = book.nodes()
        assert (node.seq, node.health) == (5, messages[5].status)
