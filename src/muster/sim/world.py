"""A fleet in one process and no time: real rules, real services, a store in memory; only time and chance are made up.

The same scenario always goes the same way, so a seed is all that it takes to see a fault again.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from muster.domain.capability import Capability
from muster.domain.node import Node
from muster.ids import NodeId
from muster.sim import heartbeats
from muster.sim.agent import SimAgent
from muster.sim.bus import SimBus
from muster.sim.chance import stream
from muster.sim.checkers import Living, NodeChecker
from muster.sim.faults import Nemesis, Victim
from muster.sim.findings import Findings
from muster.sim.ledger import Ledger
from muster.sim.network import Network
from muster.sim.people import People
from muster.sim.plane import LIMITS, TICK_MS, Plane, finish
from muster.sim.report import Report
from muster.sim.scenario import Scenario
from muster.sim.stories import Stories
from muster.sim.timeline import START_MS, Timeline
from muster.sim.watched import WatchedJobs
from muster.sim.worker import Surroundings
from muster.stores.memory import MemoryStore

TAKEN_IN = "every job is taken in"

_HOUR_MS = 3_600_000
_PLANES_TICKS = 5  # to write it down, two of a store away too shortly to notice, to be judged, to go round
_SETTLE_MS = 120_000  # of peace before nodes are judged: longer than it takes to call a node dead


def run(scenario: Scenario) -> Report:
    return heartbeats.run(scenario) if scenario.heartbeats_only else World(scenario).run()


class World:
    """Built whole, then run once; in between a test may break something in it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.timeline = Timeline()
        self.stories = Stories(self.timeline)
        self.findings = Findings(self.timeline, self.stories)
        self.ledger = Ledger(self.timeline, self.stories, self.findings)
        self.store = MemoryStore(self.timeline, event_log_entries_max=1_000_000)
        self.jobs = WatchedJobs(self.store.jobs, self.ledger, stream(scenario.seed, "store"))
        self.network = Network(self.timeline, stream(scenario.seed, "network"), scenario.faults)
        self.agents = self._make_agents()
        self._tick_ms = TICK_MS if scenario.planes == 1 else _PLANES_TICKS * TICK_MS
        self._checker = NodeChecker(
            self.timeline, self.stories, self.findings, LIMITS, scenario.heartbeat_interval_s, self._tick_ms
        )
        self._peace_ms = START_MS + round(scenario.hours * _HOUR_MS)
        self._nemesis = Nemesis(self.timeline, stream(scenario.seed, "nemesis"), self._peace_ms)
        self._people = People(
            scenario,
            self.timeline,
            self.network,
            self.ledger,
            self.findings,
            stream(scenario.seed, "people"),
            self._peace_ms,
        )
        self.bus = SimBus(self.timeline, stream(scenario.seed, "bus"))
        self._slots: dict[int, Plane] = {}
        self._lives = 0
        self._judged_since_ms = self._killed_ms = START_MS

    def _make_agents(self) -> list[SimAgent]:
        rng = stream(self.scenario.seed, "agents")
        around = Surroundings(self.timeline, self.network, self.stories, self.findings, rng)
        return [
            SimAgent(
                around,
                NodeId(f"node-{number}"),
                interval_s=self.scenario.heartbeat_interval_s,
                workers=self.scenario.workers_per_node,
                capability=Capability(
                    services=("simulation",),
                    gpu_memory_gb=24.0 if number % 2 == 0 else 8.0,
                    labels={"zone": "north"} if number % 3 == 0 else {},
                ),
            )
            for number in range(self.scenario.nodes)
        ]

    def run(self) -> Report:
        with _quiet():
            self._begin()
            self.timeline.run(self._peace_ms)
            self.network.calm()
            end_ms = self._peace_ms + _SETTLE_MS
            latest_ms = self._peace_ms + round(self.scenario.peace_hours * _HOUR_MS)
            self.timeline.run(end_ms)
            while end_ms < latest_ms and (self._people.unsubmitted or self.ledger.open_jobs()):
                end_ms += _SETTLE_MS
                self.timeline.run(end_ms)
            self._audit()
        return self._report()

    def _begin(self) -> None:
        slots = range(self.scenario.planes)
        for slot in slots:
            self._start_plane(slot)
        self._tick()
        rng = stream(self.scenario.seed, "boots")
        for agent in self.agents:
            self.timeline.after(int(rng.random() * 1000 * self.scenario.heartbeat_interval_s), agent.boot)
            self._threaten_node(agent)
        faults = self.scenario.faults
        for slot in slots:
            self._threaten_plane(slot)
        self._nemesis.threaten(
            Victim("store outages", faults.store_outages, faults.store_away_s, self._lose_store, self._find_store)
        )
        self._people.begin(self.agents)

    # --- the control plane -------------------------------------------------------------------------------------------

    def _start_plane(self, slot: int) -> None:
        self._lives += 1
        rng = stream(self.scenario.seed, f"plane {self._lives}")
        plane = Plane(self.timeline, rng, self.jobs, self.store, self.bus, f"plane-{slot}-life-{self._lives}")
        self._slots[slot] = plane
        self.network.planes.append(plane)
        self.bus.join(_place(slot), plane.peers.take)

    def _end_plane(self, slot: int) -> bool:
        plane = self._slots.pop(slot)
        self._killed_ms = self.timeline.now_ms()  # a goodbye that it had not written yet is lost
        self.stories.tell(_place(slot), "is killed")
        self.network.planes.remove(plane)
        self.bus.leave(_place(slot))
        return True

    def _threaten_plane(self, slot: int) -> None:
        faults = self.scenario.faults

        def cut() -> bool:
            self.bus.cut.add(_place(slot))
            return True

        def heal() -> None:
            self.bus.cut.discard(_place(slot))
            if slot in self._slots:
                self._slots[slot].peers.gap()  # as a connection tells that it was lost, however short the cut

        self._nemesis.threaten(
            Victim(
                "control plane restarts",
                faults.plane_restarts,
                faults.plane_away_s,
                partial(self._end_plane, slot),
                partial(self._start_plane, slot),
            )
        )
        if self.scenario.planes > 1:
            self._nemesis.threaten(Victim("control planes cut off", faults.plane_cuts, faults.plane_away_s, cut, heal))

    def _tick(self) -> None:
        """Let every control plane do its rounds, then look at what each shows."""
        for plane in self.network.planes:
            plane.tick()
        now_ms = self.timeline.now_ms()
        leading = [plane.judged_since_ms for plane in self.network.planes if plane.leads]
        self._judged_since_ms = max(self._judged_since_ms, *leading) if leading else now_ms
        for plane in self.network.planes:
            nodes = plane.fleet.book.nodes()
            since_ms = max(self._judged_since_ms, plane.judged_since_ms)
            self._checker.look(nodes, since_ms, plane.plane_id if self.scenario.planes > 1 else "")
            self._checker.look_for_the_departed(nodes, self._living(), max(since_ms, self._killed_ms))
        self.timeline.after(TICK_MS, self._tick)

    def _lose_store(self) -> bool:
        self.stories.tell("store", "is away")
        self.jobs.away = self.bus.away = True
        return True

    def _find_store(self) -> None:
        self.stories.tell("store", "is back")
        self.jobs.away = self.bus.away = False

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _threaten_node(self, agent: SimAgent) -> None:
        faults = self.scenario.faults
        away_s = faults.node_away_s

        def crash() -> bool:
            was_up = agent.up
            if was_up:
                agent.crash()
            return was_up

        def stop() -> bool:
            was_up = agent.up
            if was_up:
                agent.stop()
            return was_up

        def cut() -> bool:
            self.stories.tell(agent.node_id, "is cut off")
            self.network.cut.add(agent.node_id)
            return True

        def mend() -> None:
            self.stories.tell(agent.node_id, "is reachable again")
            self.network.cut.discard(agent.node_id)

        self._nemesis.threaten(Victim("node crashes", faults.node_crashes, away_s, crash, agent.boot))
        self._nemesis.threaten(Victim("node stops", faults.node_stops, away_s, stop, agent.boot))
        self._nemesis.threaten(Victim("node cuts", faults.node_cuts, away_s, cut, mend))

    def _living(self) -> list[Living]:
        return [agent.living() for agent in self.agents]

    # --- the end -----------------------------------------------------------------------------------------------------

    def _audit(self) -> None:
        if len(self.network.planes) != self.scenario.planes:
            raise RuntimeError("a control plane is away in peace")
        for plane in self.network.planes:
            plane.tick()
        stored = finish(self.store.nodes.load())
        for plane in self.network.planes:
            alike = _as_others_know_it if self.scenario.planes > 1 else _whole
            self._checker.audit(plane.fleet.book.nodes(), stored, self._living(), alike)
        wanted = self.ledger.job_ids()
        jobs = dict(zip(wanted, finish(self.jobs.behind.get(wanted)), strict=True))
        log = finish(self.store.log.read("0", 1_000_000))
        self.ledger.audit(jobs, log)
        if self._people.unsubmitted:
            self.findings.broken(TAKEN_IN, "people", f"still try to submit {self._people.unsubmitted} jobs")

    def _report(self) -> Report:
        faults = self._nemesis.counts + self.network.counts + self.bus.counts + self._people.counts
        return Report(
            seed=self.scenario.seed,
            nodes=len(self.agents),
            events=self.timeline.happened,
            duration_virtual_s=self.timeline.monotonic_s(),
            jobs=self.ledger.outcomes(),
            faults=dict(sorted(faults.items())),
            attempts=self.ledger.attempts(),
            choices=self._people.choices,
            violations=self.findings.all(),
            trace_hash=self.stories.digest(),
        )


def _whole(node: Node) -> object:
    return node


def _as_others_know_it(node: Node) -> object:
    """Return what control planes must agree about though the newest heartbeat has not gone round."""
    return (node.node_id, node.boot_id, node.health, node.connected, node.draining)


def _place(slot: int) -> str:
    return f"control plane {slot}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the real services from logging a made-up world."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
