"""A world of heartbeats alone: the registry's rules at the size of a large fleet, without services and jobs."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

from muster.domain.node import Node, NodeFacts
from muster.ids import NodeId
from muster.registry.book import DropNode, Effect, NodeBook, SaveNode, Verdict
from muster.registry.lateness import Limits
from muster.sim.chance import spread_ms, stream
from muster.sim.checkers import Living, NodeChecker
from muster.sim.faults import Nemesis, Victim
from muster.sim.findings import Findings
from muster.sim.report import Report
from muster.sim.scenario import Scenario
from muster.sim.stories import Stories
from muster.sim.timeline import START_MS, Timeline
from muster.wire import Heartbeat

_HOUR_MS = 3_600_000
_TICK_MS = 2_000
_LOOK_MS = 10_000  # checking costs more than what is checked
_SETTLE_MS = 120_000
_LIMITS = Limits()


class _Sky:
    """What all nodes share: a book, the records that it had saved, and a way to it that loses and delays."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.timeline = Timeline()
        self.stories = Stories(self.timeline)
        self.findings = Findings(self.timeline, self.stories)
        self.rng = stream(scenario.seed, "network")
        self.book = NodeBook(_LIMITS, nodes_max=scenario.nodes)
        self.listening_since_ms = START_MS
        self.stored: dict[NodeId, Node] = {}
        self.lost = scenario.faults.lost
        self.late = scenario.faults.straggling
        self.counts: Counter[str] = Counter()

    def send(self, message: Heartbeat) -> Verdict | None:
        """Deliver at once, or late, or never; most arrive at once, which costs no entry in the timeline."""
        luck = self.rng.random()
        self.counts["heartbeats"] += 1
        if luck < self.lost:
            self.counts["heartbeats lost"] += 1
        elif luck > 1 - self.late:
            self.counts["heartbeats late"] += 1
            late_ms = spread_ms(self.rng, (0, self.scenario.faults.straggle_s))
            self.timeline.after(late_ms, partial(self._arrive_late, message))
        else:
            return self._arrive(message)
        return None

    def _arrive(self, message: Heartbeat) -> Verdict:
        heard = self.book.heard(message, "simulated", self.timeline.now_ms())
        self.carry_out(heard.effects)
        return heard.verdict

    def _arrive_late(self, message: Heartbeat) -> None:
        self._arrive(message)

    def carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveNode):
                self.stored[effect.node.facts.node_id] = effect.node
            elif isinstance(effect, DropNode):
                del self.stored[effect.node_id]

    def restart(self) -> bool:
        self.book = NodeBook(_LIMITS, nodes_max=self.scenario.nodes)
        self.book.load(self.stored.values(), self.timeline.now_ms())
        self.listening_since_ms = self.timeline.now_ms()
        return True


class _Boot:
    """One life of an agent that only speaks of itself."""

    def __init__(self, sky: _Sky, facts: NodeFacts, number: int) -> None:
        self._sky = sky
        self._facts = facts
        self.boot_id = f"boot-{number}"
        self._interval_s = sky.scenario.heartbeat_interval_s
        self._interval_ms = round(self._interval_s * 1000)
        self._seq = 0
        self.alive = True
        self.superseded = False

    def beat(self) -> None:
        if not self.alive:
            return
        self._seq += 1
        message = Heartbeat(
            facts=self._facts, boot_id=self.boot_id, seq=self._seq, heartbeat_interval_s=self._interval_s
        )
        self._sky.timeline.after(self._interval_ms, self.beat)
        if self._sky.send(message) is Verdict.SUPERSEDED:
            self.superseded = True


class _Node:
    def __init__(self, sky: _Sky, number: int, rng: Random) -> None:
        self._sky = sky
        self._facts = NodeFacts(node_id=NodeId(f"node-{number}"))
        self._boots = 1
        self._boot = _Boot(sky, self._facts, 1)
        sky.timeline.after(int(rng.random() * 1000 * sky.scenario.heartbeat_interval_s), self._boot.beat)

    def crash(self) -> bool:
        self._boot.alive = False
        return True

    def start_again(self) -> None:
        self._boots += 1
        self._boot = _Boot(self._sky, self._facts, self._boots)
        self._boot.beat()

    def living(self) -> Living:
        return Living(self._facts.node_id, self._boot.boot_id, superseded=self._boot.superseded)


def run(scenario: Scenario) -> Report:
    sky = _Sky(scenario)
    timeline, faults = sky.timeline, scenario.faults
    peace_ms = START_MS + round(scenario.hours * _HOUR_MS)
    nemesis = Nemesis(timeline, stream(scenario.seed, "nemesis"), peace_ms)
    rng = stream(scenario.seed, "agents")
    nodes = [_Node(sky, number, rng) for number in range(scenario.nodes)]
    for node in nodes:
        crash = Victim("node crashes", faults.node_crashes, faults.node_away_s, node.crash, node.start_again)
        nemesis.threaten(crash)
    restart = Victim("control plane restarts", faults.plane_restarts, faults.plane_away_s, sky.restart, _nothing)
    nemesis.threaten(restart)
    checker = NodeChecker(timeline, sky.stories, sky.findings, _LIMITS, scenario.heartbeat_interval_s, tick_ms=_TICK_MS)

    def tick() -> None:
        sky.carry_out(sky.book.tick(timeline.now_ms()))
        timeline.after(_TICK_MS, tick)

    def look() -> None:
        checker.look(sky.book.nodes(), sky.listening_since_ms)
        timeline.after(_LOOK_MS, look)

    tick()
    look()
    timeline.run(peace_ms)
    sky.lost = sky.late = 0.0
    timeline.run(peace_ms + _SETTLE_MS)
    checker.audit(sky.book.nodes(), list(sky.stored.values()), [node.living() for node in nodes])
    return Report(
        seed=scenario.seed,
        nodes=scenario.nodes,
        events=timeline.happened,
        duration_virtual_s=timeline.monotonic_s(),
        faults=dict(sorted((nemesis.counts + sky.counts).items())),
        violations=sky.findings.all(),
        trace_hash=sky.stories.digest(),
    )


def _nothing() -> None:
    """Leave it: a restart takes no time here."""
