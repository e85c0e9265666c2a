"""The book of nodes: one record per node id, changed by messages and by silence.

Time is always the control plane's own (`now_ms`); what an agent's clock says has no meaning here. The book only
decides: every call that changes something returns the effects that its shell is to carry out, in order.
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from muster.domain.event import Emit
from muster.domain.node import Health, Node, Phase
from muster.domain.worker import Worker
from muster.errors import InvalidInput, NodeNotFound, QueueFull
from muster.ids import NodeId, WorkerId, check_name, check_node_id, worker_id
from muster.registry.boots import RETIRED_MAX, Boots, Standing
from muster.registry.changes import changes, node_event
from muster.registry.effects import DropNode, Effect, SaveNode
from muster.registry.health import ALIVE, Signal, next_health
from muster.registry.lateness import Lateness, Limits, lateness
from muster.wire import Heartbeat, Registration

__all__ = ["DropNode", "Effect", "Emit", "Heard", "NodeBook", "SaveNode", "Verdict"]

_CONFLICT_EVERY_MS = 60_000
_FULL_RETRY_S = 30.0
_INTERVAL_UNKNOWN_S = 30.0
_NEVER_HEARD = -1  # the seq of a boot before its first heartbeat
_OF_AGENT = {
    Health.HEALTHY: Signal.HEARD_HEALTHY,
    Health.DEGRADED: Signal.HEARD_DEGRADED,
    Health.UNHEALTHY: Signal.HEARD_UNHEALTHY,
}


class Verdict(StrEnum):
    KNOWN = "known"
    CREATED = "created"
    IGNORED_OLD = "ignored_old"
    SUPERSEDED = "superseded"  # another live agent has this node id


class Heard(Struct, frozen=True):
    verdict: Verdict
    effects: list[Effect]


class _Entry(Struct):
    """A node, and what is remembered about it in this process only."""

    node: Node
    boots: Boots
    silent_since_ms: int  # when it was last heard, but never before we began to listen
    due_ms: int = 0  # silence beyond this changes something
    refused: frozenset[WorkerId] = frozenset()
    conflict_told_ms: int | None = None


class _Left(Struct, frozen=True):
    """The boots of a node that left: what they sent before must neither bring it back nor retire its next boot."""

    boot_ids: tuple[str, ...]
    ignored_until_ms: int  # what is heard of them later was not merely late


class NodeBook:
    def __init__(self, limits: Limits, forget_after_s: float = 3600.0, nodes_max: int = 10_000) -> None:
        self._limits = limits
        self._forget_after_ms = round(forget_after_s * 1000)
        self._nodes_max = nodes_max
        self._entries: dict[NodeId, _Entry] = {}
        self._left: dict[NodeId, _Left] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, node_id: NodeId) -> Node | None:
        entry = self._entries.get(node_id)
        return None if entry is None else entry.node

    def nodes(self) -> list[Node]:
        return [entry.node for entry in self._entries.values()]

    def is_late(self, node: Node, now_ms: int) -> bool:
        """Tell whether the node missed so many heartbeats that it should take no new work."""
        entry = self._entries.get(node.node_id)
        silent_since_ms = node.last_seen_ms if entry is None else entry.silent_since_ms
        return lateness(now_ms - silent_since_ms, node.heartbeat_interval_s, self._limits) is not Lateness.ON_TIME

    # --- what agents say ---------------------------------------------------------------------------------------------

    def registered(self, message: Registration, link: str, now_ms: int) -> list[Effect]:
        """Take a node in before its first heartbeat. A registration that comes late or twice changes little."""
        node_id, boot_id = message.facts.node_id, message.boot_id
        entry = self._entries.get(node_id)
        if entry is None:
            if self._has_left(node_id, boot_id, now_ms):
                return []
            entry = self._open(message, link, now_ms)
            entry.node = replace(entry.node, gpus=message.gpus, services=message.services)
            return [_told_of(entry.node, now_ms), SaveNode(entry.node)]
        if entry.boots.is_retired(boot_id):
            return []
        before = entry.node
        after = replace(
            before,
            facts=message.facts,
            heartbeat_interval_s=message.heartbeat_interval_s,
            link=link,
            connected=True,
            last_seen_ms=now_ms,
        )
        entry.silent_since_ms = now_ms
        same_boot = boot_id == before.boot_id
        if same_boot and before.health in ALIVE:
            return self._write(entry, after, now_ms)  # its heartbeats have said more than a registration can
        if not same_boot:
            after = self._reboot(entry, after, boot_id, now_ms)
        if message.services:
            after = replace(after, gpus=message.gpus, services=message.services)
        health = next_health(node_id, before.health, Signal.REGISTERED)
        return self._write(entry, replace(after, health=health, phase=message.phase, reason=None), now_ms)

    def heard(self, message: Heartbeat, link: str, now_ms: int) -> Heard:
        if message.status not in _OF_AGENT:
            raise InvalidInput(
                f"status must be healthy, degraded or unhealthy, got {message.status.value!r}", field="status"
            )
        if message.seq < 0:
            raise InvalidInput(f"seq must not be negative, got {message.seq}", field="seq")
        node_id = message.facts.node_id
        entry = self._entries.get(node_id)
        if entry is None:
            if self._has_left(node_id, message.boot_id, now_ms):
                return Heard(Verdict.IGNORED_OLD, [])
            entry = self._open(message, link, now_ms)
            told = _told_of(entry.node, now_ms)
            return Heard(Verdict.CREATED, [told, *self._take(entry, message, link, now_ms)])
        standing = entry.boots.standing(
            entry.node,
            message.boot_id,
            message.seq,
            now_ms,
            silent_since_ms=entry.silent_since_ms,
            window_ms=self._limits.late_after_ms(entry.node.heartbeat_interval_s),
        )
        if standing is Standing.OLD:
            return Heard(Verdict.IGNORED_OLD, [])
        if standing is Standing.RIVAL:
            return Heard(Verdict.SUPERSEDED, self._conflict(entry, message.boot_id, now_ms))
        return Heard(Verdict.KNOWN, self._take(entry, message, link, now_ms))

    def deregistered(self, node_id: NodeId, boot_id: str, reason: str, now_ms: int) -> list[Effect]:
        """Let a node go that stopped cleanly.

        The word of a retired boot means nothing. That of a boot never heard counts: it is the newest one, and its
        first messages were lost or are still on the way.
        """
        entry = self._entries.get(node_id)
        if entry is None:
            self._remember_left(node_id, (boot_id,), _INTERVAL_UNKNOWN_S, now_ms)
            return []
        if entry.boots.is_retired(boot_id):
            return []
        self._remember_left(node_id, (*entry.boots.retired_ids, boot_id), entry.node.heartbeat_interval_s, now_ms)
        return self._drop(entry, "node_deregistered", reason, now_ms)

    def link_changed(self, node_id: NodeId, link: str, now_ms: int, *, connected: bool) -> list[Effect]:
        """Note that a link opened or closed. An open link alone does not raise the dead: a heartbeat does."""
        entry = self._entries.get(node_id)
        if entry is None:
            return []
        before = entry.node
        if connected:
            after = replace(before, link=link, connected=before.health is not Health.DEAD)
        elif link == before.link:
            after = replace(before, connected=False)
        else:
            return []  # a link that the node has left behind
        return self._write(entry, after, now_ms) if after != before else []

    def lost(self, node_id: NodeId, reason: str, now_ms: int) -> list[Effect]:
        """Take the word of who knows that the node's machine does not run; a heartbeat proves it wrong."""
        entry = self._entries.get(node_id)
        if entry is None or entry.node.health is Health.DEAD:
            return []
        health = next_health(node_id, entry.node.health, Signal.WENT_DEAD)
        return self._write(
            entry, replace(entry.node, health=health, phase=Phase.OFFLINE, connected=False, reason=reason), now_ms
        )

    # --- what people say ---------------------------------------------------------------------------------------------

    def set_draining(self, node_id: NodeId, now_ms: int, *, draining: bool) -> list[Effect]:
        entry = self._known(node_id)
        if entry.node.draining is draining:
            return []
        return self._write(entry, replace(entry.node, draining=draining), now_ms)

    def set_service_draining(self, node_id: NodeId, name: str, now_ms: int, *, draining: bool) -> list[Effect]:
        """Keep one service from new work, whatever it says itself, until it is taken back."""
        entry = self._known(node_id)
        before = entry.node
        if (name in before.drained_services) is draining:
            return []
        left = tuple(service for service in before.drained_services if service != name)
        return self._write(entry, replace(before, drained_services=(*left, name) if draining else left), now_ms)

    def forget(self, node_id: NodeId, now_ms: int) -> list[Effect]:
        """Drop the record; a node that lives makes it anew with its next heartbeat."""
        return self._drop(self._known(node_id), "node_forgotten", "deleted", now_ms)

    # --- what silence says -------------------------------------------------------------------------------------------

    def load(self, nodes: Iterable[Node], now_ms: int) -> list[Effect]:
        """Take up the records of an earlier life. Silence counts from now: our own absence is nobody's death."""
        for node in nodes:
            self._entries[node.node_id] = self._dated(
                _Entry(node, Boots(node.retired_boot_ids, now_ms), silent_since_ms=now_ms)
            )
        return []

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for entry in [entry for entry in self._entries.values() if entry.due_ms < now_ms]:
            effects += self._silent(entry, now_ms)
        old_ms = now_ms - self._forget_after_ms
        for node_id in [node_id for node_id, left in self._left.items() if left.ignored_until_ms < old_ms]:
            del self._left[node_id]
        return effects

    def _silent(self, entry: _Entry, now_ms: int) -> list[Effect]:
        node, silent_ms = entry.node, now_ms - entry.silent_since_ms
        if node.health is Health.DEAD:
            return self._drop(entry, "node_forgotten", f"no heartbeat for {silent_ms // 1000} s", now_ms)
        reason = f"no heartbeat for {silent_ms // 1000} s, one was due every {node.heartbeat_interval_s:g} s"
        if lateness(silent_ms, node.heartbeat_interval_s, self._limits) is Lateness.DEAD:
            health = next_health(node.node_id, node.health, Signal.WENT_DEAD)
            after = replace(node, health=health, phase=Phase.OFFLINE, connected=False, reason=reason)
        else:
            after = replace(node, health=next_health(node.node_id, node.health, Signal.WENT_STALE), reason=reason)
        return self._write(entry, after, now_ms)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _open(self, message: Registration | Heartbeat, link: str, now_ms: int) -> _Entry:
        """Begin a record, with nothing heard yet."""
        node_id, boot_id = check_node_id(message.facts.node_id), check_name(message.boot_id, "boot_id")
        if len(self._entries) >= self._nodes_max:
            raise QueueFull(
                f"{self._nodes_max} nodes are known, no more are taken in: raise nodes_max or delete dead nodes",
                field="nodes_max",
                retry_after_s=_FULL_RETRY_S,
            )
        left = self._left.pop(node_id, None)
        boots = Boots((boot for boot in left.boot_ids if boot != boot_id) if left else (), now_ms)
        node = Node(
            facts=message.facts,
            health=Health.REGISTERING,
            phase=message.phase,
            link=link,
            boot_id=boot_id,
            seq=_NEVER_HEARD,
            retired_boot_ids=boots.retired_ids,
            heartbeat_interval_s=message.heartbeat_interval_s,
            registered_at_ms=now_ms,
            last_seen_ms=now_ms,
            booted_at_ms=now_ms,
        )
        entry = self._entries[node_id] = self._dated(_Entry(node, boots, silent_since_ms=now_ms))
        return entry

    def _take(self, entry: _Entry, message: Heartbeat, link: str, now_ms: int) -> list[Effect]:
        """Make the record what the heartbeat says, keeping what only the control plane knows."""
        node = entry.node
        if message.boot_id != node.boot_id:
            node = self._reboot(entry, node, message.boot_id, now_ms)
        entry.silent_since_ms = now_ms
        workers, refused = self._own_workers(entry, message.workers, now_ms)
        after = Node(
            facts=message.facts,
            health=next_health(node.node_id, node.health, _OF_AGENT[message.status]),
            phase=message.phase,
            draining=node.draining,
            drained_services=node.drained_services,
            link=link,
            boot_id=message.boot_id,
            seq=message.seq,
            retired_boot_ids=node.retired_boot_ids,
            heartbeat_interval_s=message.heartbeat_interval_s,
            registered_at_ms=node.registered_at_ms,
            last_seen_ms=now_ms,
            booted_at_ms=node.booted_at_ms,
            resources=message.resources,
            gpus=message.gpus,
            workers=workers,
            services=message.services,
            reason=message.reason,
        )
        return [*self._write(entry, after, now_ms), *refused]

    def _write(self, entry: _Entry, after: Node, now_ms: int) -> list[Effect]:
        """Put the record in place, with the facts that this changes."""
        before, entry.node = entry.node, after
        self._dated(entry)
        return [SaveNode(after), *changes(before, after, now_ms)]

    def _drop(self, entry: _Entry, kind: str, reason: str, now_ms: int) -> list[Effect]:
        node = entry.node
        del self._entries[node.node_id]
        return [DropNode(node.node_id), node_event(node, kind, now_ms, reason=reason)]

    def _reboot(self, entry: _Entry, node: Node, boot_id: str, now_ms: int) -> Node:
        entry.boots.replace(entry.node, check_name(boot_id, "boot_id"), now_ms)
        return replace(
            node, boot_id=boot_id, seq=_NEVER_HEARD, retired_boot_ids=entry.boots.retired_ids, booted_at_ms=now_ms
        )

    def _dated(self, entry: _Entry) -> _Entry:
        """Set when silence will next matter."""
        limits, interval_s = self._limits, entry.node.heartbeat_interval_s
        wait_ms = limits.dead_after_ms(interval_s)
        if entry.node.health is Health.DEAD:
            wait_ms += self._forget_after_ms
        elif entry.node.health is not Health.STALE:
            wait_ms = min(wait_ms, limits.stale_after_ms(interval_s))
        entry.due_ms = entry.silent_since_ms + wait_ms
        return entry

    # --- smaller judgements ------------------------------------------------------------------------------------------

    def _known(self, node_id: NodeId) -> _Entry:
        entry = self._entries.get(node_id)
        if entry is None:
            raise NodeNotFound(f"no node {node_id!r} is known", field="node_id")
        return entry

    def _remember_left(self, node_id: NodeId, boot_ids: tuple[str, ...], interval_s: float, now_ms: int) -> None:
        known = self._left.pop(node_id, None)
        gone = tuple(dict.fromkeys((*known.boot_ids, *boot_ids) if known else boot_ids))
        self._left[node_id] = _Left(gone[-RETIRED_MAX:], now_ms + self._limits.late_after_ms(interval_s))
        if len(self._left) > self._nodes_max:
            del self._left[next(iter(self._left))]

    def _has_left(self, node_id: NodeId, boot_id: str, now_ms: int) -> bool:
        left = self._left.get(node_id)
        return left is not None and boot_id in left.boot_ids and now_ms <= left.ignored_until_ms

    def _own_workers(
        self, entry: _Entry, workers: tuple[Worker, ...], now_ms: int
    ) -> tuple[tuple[Worker, ...], list[Effect]]:
        """Take only workers that carry the node's name; a refused one is told of once."""
        node = entry.node
        if workers == node.workers:
            return workers, []
        own = {
            worker.worker_id: worker for worker in workers if worker.worker_id == worker_id(node.node_id, worker.index)
        }
        refused = frozenset(worker.worker_id for worker in workers) - own.keys()
        reason = f"workers of this node are named {node.node_id}-worker-<index>"
        told: list[Effect] = [
            node_event(node, "worker_refused", now_ms, worker_id=refused_id, reason=reason)
            for refused_id in sorted(refused - entry.refused)
        ]
        entry.refused = frozenset(refused)
        return tuple(own.values()), told

    def _conflict(self, entry: _Entry, boot_id: str, now_ms: int) -> list[Effect]:
        told_ms = entry.conflict_told_ms
        if told_ms is not None and now_ms - told_ms < _CONFLICT_EVERY_MS:
            return []
        entry.conflict_told_ms = now_ms
        reason = "two agents run under this node id: give one of them its own"
        boots = (entry.node.boot_id, boot_id)
        return [node_event(entry.node, "node_id_conflict", now_ms, boot_ids=boots, reason=reason)]


def _told_of(node: Node, now_ms: int) -> Emit:
    return node_event(node, "node_registered", now_ms, node_type=node.facts.node_type, link=node.link)
