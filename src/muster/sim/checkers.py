"""What must be true of nodes: while the world runs, and when there has been peace for a while."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from muster.domain.node import Health, Node
from muster.ids import NodeId
from muster.registry.health import LOST
from muster.registry.lateness import Limits
from muster.sim.findings import Findings
from muster.sim.stories import Stories
from muster.sim.timeline import Timeline

SILENCE_SHOWS = "a silent node is not shown as healthy"
ALL_BACK = "every live node is healthy again"
GONE_STAYS_GONE = "a node that stopped cleanly is not listed"
ONE_RECORD = "the store holds what the registry says, one record a node"
NO_GHOSTS = "an agent that is alone is not told of another"


class Living(Struct, frozen=True):
    """An agent as it really is."""

    node_id: NodeId
    boot_id: str
    left_ms: int | None = None  # when its goodbye was answered, until it boots again
    superseded: bool = False


class NodeChecker:
    """Looks after every tick; `tick_ms` is how late silence may be noticed, and news taken in where planes are many."""

    def __init__(
        self, timeline: Timeline, stories: Stories, findings: Findings, limits: Limits, interval_s: float, tick_ms: int
    ) -> None:
        self._timeline = timeline
        self._stories = stories
        self._findings = findings
        self._tick_ms = tick_ms
        self._late_ms = limits.late_after_ms(interval_s)
        self._stale_ms = limits.stale_after_ms(interval_s) + tick_ms
        self._dead_ms = limits.dead_after_ms(interval_s) + tick_ms
        self._shown: dict[NodeId, Node] = {}
        self._views: dict[tuple[str, NodeId], tuple[str, int]] = {}
        self._news_ms: dict[NodeId, int] = {}

    def look(self, nodes: Iterable[Node], listening_since_ms: int, viewer: str = "") -> None:
        """Check that silence has shown; a control plane counts it from its own beginning.

        With a `viewer`, one of several control planes: what another one heard counts from when it came to each.
        """
        now_ms = self._timeline.now_ms()
        for node in nodes:
            node_id, health = node.facts.node_id, node.health
            before = self._shown.get(node_id)
            if before is not node:
                self._shown[node_id] = node
                if before is None or before.health is not health or before.boot_id != node.boot_id:
                    self._stories.tell(node_id, f"shown as {health}, {node.boot_id}")
            if viewer and self._views.get((viewer, node_id)) != (view := (node.boot_id, node.seq)):
                self._views[viewer, node_id] = view
                self._news_ms[node_id] = now_ms
            silent_ms = now_ms - max(node.last_seen_ms, listening_since_ms, self._news_ms.get(node_id, 0))
            if silent_ms <= self._stale_ms:
                continue
            if health not in LOST or (silent_ms > self._dead_ms and health is not Health.DEAD):
                self._findings.broken(SILENCE_SHOWS, node_id, f"is {health} after {silent_ms / 1000:g} s")

    def look_for_the_departed(self, nodes: Iterable[Node], living: Iterable[Living], listening_since_ms: int) -> None:
        """Check that no old message brought a node back; a control plane that began since knows of no departure.

        Another one than that which heard the goodbye has a tick's time to hear of it.
        """
        listed = {node.node_id: node for node in nodes}
        for agent in living:
            node = listed.get(agent.node_id)
            if node is None or agent.left_ms is None or agent.left_ms < listening_since_ms:
                continue
            if self._tick_ms < self._timeline.now_ms() - agent.left_ms <= self._late_ms:
                self._findings.broken(GONE_STAYS_GONE, agent.node_id, f"is {node.health}, boot {node.boot_id}")

    def audit(
        self,
        nodes: Sequence[Node],
        stored: Sequence[Node],
        living: Iterable[Living],
        alike: Callable[[Node], object] = lambda node: node,
    ) -> None:
        """Check what is shown in peace; `alike` is what must be the same in the store's records and in these."""
        listed = {node.node_id: node for node in nodes}
        if sorted(map(alike, nodes), key=repr) != sorted(map(alike, stored), key=repr):
            self._findings.broken(ONE_RECORD, "store", f"differs: {len(stored)} records, {len(nodes)} in the registry")
        for agent in living:
            node = listed.pop(agent.node_id, None)
            if node is None:
                self._findings.broken(ALL_BACK, agent.node_id, "is not listed though it lives")
            elif node.health is not Health.HEALTHY or not node.connected or node.boot_id != agent.boot_id:
                told = f"is shown as {node.health}, {node.boot_id}; it lives as {agent.boot_id}"
                self._findings.broken(ALL_BACK, agent.node_id, told)
            if agent.superseded:
                self._findings.broken(NO_GHOSTS, agent.node_id, "was told that a newer boot is alive")
        for node_id in listed:
            self._findings.broken(ONE_RECORD, node_id, "is listed and never was")
