"""A node, and what one control plane remembers about it for itself."""

from msgspec import Struct

from muster.domain.node import Health, Node
from muster.ids import WorkerId
from muster.registry.boots import Boots
from muster.registry.lateness import Limits


class Entry(Struct):
    node: Node
    boots: Boots
    silent_since_ms: int  # when it was last heard, but never before we began to listen
    touched_ms: int  # when the record was last changed, by whomever
    late_ms: int = 0  # silence beyond this means no new work
    due_ms: int = 0  # silence beyond this changes its health
    heard_here: bool = False  # its newest word came to us; false: another control plane told us of it
    recovered_from: tuple[str, int] | None = None  # boot and seq at which it was last found lost, and came back
    refused: frozenset[WorkerId] = frozenset()
    conflict_told_ms: int | None = None

    def date(self, limits: Limits, forget_after_ms: int) -> None:
        """Set when silence will next matter."""
        interval_s = self.node.heartbeat_interval_s
        dead_ms, stale_ms = limits.dead_after_ms(interval_s), limits.stale_after_ms(interval_s)
        self.late_ms = self.silent_since_ms + min(limits.late_after_ms(interval_s), stale_ms, dead_ms)
        wait_ms = dead_ms
        if self.node.health is Health.DEAD:
            wait_ms += forget_after_ms
        elif self.node.health is not Health.STALE:
            wait_ms = min(wait_ms, stale_ms)
        self.due_ms = self.silent_since_ms + wait_ms

    def shift(self, by_ms: int) -> None:
        """Move along with our clock, which was set."""
        self.silent_since_ms += by_ms
        self.touched_ms += by_ms
        self.late_ms += by_ms
        self.due_ms += by_ms
        self.boots.shift(by_ms)
        if self.conflict_told_ms is not None:
            self.conflict_told_ms += by_ms
