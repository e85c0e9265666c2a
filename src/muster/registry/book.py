"""The book of nodes: one record per node id, changed by messages and by silence.

Time is always the control plane's own (`now_ms`); what an agent's clock says has no meaning here, and when our own
clock is set, `clock_set` keeps that from looking like silence. The book only decides: every call that changes something
returns the effects that its shell is to carry out, in order.

Several control planes may each keep a book of the same nodes. What one heard the others take in as `observed`: it
counts as heard, and they tell no facts about it. Only one of them judges silence.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from muster.domain.event import Emit, Event
from muster.domain.node import Health, Node, Phase
from muster.domain.worker import Worker
from muster.errors import InvalidInput, NodeNotFound, QueueFull
from muster.ids import NodeId, check_name, check_node_id, worker_id
from muster.registry.boots import Boots, Standing
from muster.registry.changes import changes, node_event
from muster.registry.departed import Departed
from muster.registry.effects import DropNode, Effect, SaveNode, ShowNode
from muster.registry.entry import Entry
from muster.registry.health import ALIVE, LOST, Signal, next_health
from muster.registry.lateness import Lateness, Limits, lateness
from muster.registry.merge import merged
from muster.registry.suspicion import Suspicion, Turn
from muster.wire import Heartbeat, Registration
from muster.wire.peers import NodeGone

__all__ = ["DropNode", "Effect", "Emit", "Heard", "NodeBook", "SaveNode", "ShowNode", "Verdict"]

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


class NodeBook:
    def __init__(
        self,
        limits: Limits,
        forget_after_s: float = 3600.0,
        nodes_max: int = 10_000,
        *,
        suspicion_s: float = 120.0,
        plane_id: str = "control-plane",
    ) -> None:
        """For up to `suspicion_s` silence of most nodes at once is taken for our own deafness."""
        self._limits = limits
        self._forget_after_ms = round(forget_after_s * 1000)
        self._nodes_max = nodes_max
        self._plane_id = plane_id
        self._entries: dict[NodeId, Entry] = {}
        self._departed = Departed(nodes_max)
        self._suspicion = Suspicion(suspicion_s)
        self._deaf_since_ms: int | None = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, node_id: NodeId) -> Node | None:
        entry = self._entries.get(node_id)
        return None if entry is None else entry.node

    def nodes(self) -> list[Node]:
        return [entry.node for entry in self._entries.values()]

    def is_late(self, node: Node, now_ms: int) -> bool:
        """Tell whether the node missed so many heartbeats that it should take no new work.

        Silence in which we could not hear, or may not have heard, is not held against it.
        """
        entry = self._entries.get(node.node_id)
        if entry is None:
            return lateness(now_ms - node.last_seen_ms, node.heartbeat_interval_s, self._limits) is not Lateness.ON_TIME
        if entry.node.health in LOST:
            return True
        heard_until_ms = now_ms if self._deaf_since_ms is None else self._deaf_since_ms
        return heard_until_ms > entry.late_ms and not self._suspicion.excuses(node.node_id)

    def gone(self, node_id: NodeId) -> NodeGone:
        """Return what others are to be told of a node that is listed no more."""
        return self._departed.get(node_id)

    @property
    def suspects_itself(self) -> bool:
        """Whether so many nodes are silent that it may be our own fault; nobody is judged in the meantime."""
        return self._suspicion.active

    @property
    def hears(self) -> bool:
        """Whether what other control planes hear reaches us."""
        return self._deaf_since_ms is None

    # --- what agents say ---------------------------------------------------------------------------------------------

    def registered(self, message: Registration, link: str, now_ms: int) -> list[Effect]:
        """Take a node in before its first heartbeat. A registration that comes late or twice changes little."""
        node_id, boot_id = message.facts.node_id, message.boot_id
        entry = self._entries.get(node_id)
        if entry is None:
            if self._departed.ignores(node_id, boot_id, now_ms):
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
        entry.silent_since_ms, entry.heard_here = now_ms, True
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
            if self._departed.ignores(node_id, message.boot_id, now_ms):
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
            self._remember_left(NodeGone(node_id, (boot_id,)), _INTERVAL_UNKNOWN_S, now_ms)
            return [DropNode(node_id)]  # another control plane may know it
        if entry.boots.is_retired(boot_id):
            return []
        return self._drop(entry, "node_deregistered", reason, now_ms, (*entry.boots.retired_ids, boot_id))

    def link_changed(self, node_id: NodeId, link: str, now_ms: int, *, connected: bool) -> list[Effect]:
        """Note that a link opened or closed. An open link alone does not raise the dead: a heartbeat does."""
        entry = self._entries.get(node_id)
        if entry is None:
            return []
        before = entry.node
        if connected:
            entry.heard_here = True
            after = replace(before, link=link, connected=before.health is not Health.DEAD)
        elif link == before.link and entry.heard_here:
            after = replace(before, connected=False)
        else:
            return []  # a link that the node has left behind, for another one or for another control plane
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
        """Note what people decided, also where nothing changes: another control plane may still think otherwise."""
        entry = self._known(node_id)
        before = entry.node
        after = replace(before, draining=draining, draining_at_ms=_next(before.draining_at_ms, now_ms))
        return self._write(entry, after, now_ms)

    def set_service_draining(self, node_id: NodeId, name: str, now_ms: int, *, draining: bool) -> list[Effect]:
        """Keep one service from new work, whatever it says itself, until it is taken back."""
        entry = self._known(node_id)
        before = entry.node
        left = tuple(service for service in before.drained_services if service != name)
        drained = (*left, name) if draining else left
        after = replace(before, drained_services=drained, draining_at_ms=_next(before.draining_at_ms, now_ms))
        return self._write(entry, after, now_ms)

    def forget(self, node_id: NodeId, now_ms: int) -> list[Effect]:
        """Drop the record; a node that lives makes it anew with its next heartbeat."""
        return self._drop(self._known(node_id), "node_forgotten", "deleted", now_ms)

    # --- what other control planes say -------------------------------------------------------------------------------

    def observed(self, theirs: Node, now_ms: int, *, stored: bool = False) -> list[Effect]:
        """Take in a record that another control plane wrote; `stored`: as it was found in the store.

        Nobody is told of it, but it is written again where it lacks what we know and the other one did not.
        """
        entry = self._entries.get(theirs.node_id)
        if entry is None:
            return self._observed_first(theirs, now_ms, stored=stored)
        ours, after = entry.node, merged(entry.node, theirs)
        effects: list[Effect] = []
        if after != ours:
            self._take_over(entry, after, now_ms)
            effects.append(ShowNode(after.node_id))
        if theirs.health in LOST and after.health not in LOST:
            effects += self._contradict(entry, theirs, now_ms)
        if after != theirs if stored else after.draining_at_ms > theirs.draining_at_ms:
            effects.append(SaveNode(after))
        return effects

    def _observed_first(self, theirs: Node, now_ms: int, *, stored: bool) -> list[Effect]:
        node_id = theirs.node_id
        dropped = theirs.revision <= self._departed.get(node_id).revision
        if dropped or self._departed.ignores(node_id, theirs.boot_id, now_ms):
            return [DropNode(node_id)] if stored else []  # written by one after another had dropped it
        if len(self._entries) >= self._nodes_max:
            return []
        self._departed.returned(node_id)
        self._load(theirs, now_ms)
        return [ShowNode(node_id)]

    def _take_over(self, entry: Entry, after: Node, now_ms: int) -> None:
        ours = entry.node
        if after.retired_boot_ids != ours.retired_boot_ids or after.boot_id != ours.boot_id:
            entry.boots.adopt(ours, after, now_ms)
        if (after.boot_id, after.seq, after.last_seen_ms) != (ours.boot_id, ours.seq, ours.last_seen_ms):
            entry.silent_since_ms, entry.heard_here = now_ms, False
        self._put(entry, after, now_ms)

    def _contradict(self, entry: Entry, theirs: Node, now_ms: int) -> list[Effect]:
        """Take back, once, that the node is lost: it was heard here while another control plane judged it."""
        found_lost = (theirs.boot_id, theirs.seq)
        if not entry.heard_here or entry.recovered_from == found_lost:
            return []
        entry.recovered_from = found_lost
        before = replace(entry.node, health=theirs.health, connected=theirs.connected)
        return [*changes(before, entry.node, now_ms)]

    def observed_drop(self, gone: NodeGone, now_ms: int) -> list[Effect]:
        """Let a node go that another control plane dropped, unless we know of newer life."""
        entry = self._entries.get(gone.node_id)
        if entry is None:
            self._remember_left(gone, _INTERVAL_UNKNOWN_S, now_ms)
            return []
        node = entry.node
        if node.boot_id not in gone.boot_ids and node.revision > gone.revision:
            return [SaveNode(node)]
        self._remember_left(gone, node.heartbeat_interval_s, now_ms)
        del self._entries[gone.node_id]
        # What we heard may have been written after the other one had deleted it.
        again: list[Effect] = [DropNode(gone.node_id)] if entry.heard_here else []
        return [ShowNode(gone.node_id), *again]

    def not_stored(self, stored: Collection[NodeId], asked_ms: int, now_ms: int) -> list[Effect]:
        """Settle what the store did not have when it was asked: others dropped it, unless it is heard here."""
        effects: list[Effect] = []
        for entry in [entry for entry in self._entries.values() if entry.touched_ms < asked_ms]:
            node = entry.node
            if node.node_id in stored:
                continue
            if entry.heard_here and now_ms <= entry.late_ms:
                effects.append(SaveNode(node))
            else:
                del self._entries[node.node_id]
                effects.append(ShowNode(node.node_id))
        return effects

    # --- what silence says -------------------------------------------------------------------------------------------

    def load(self, nodes: Iterable[Node], now_ms: int) -> list[Effect]:
        """Take up the records of an earlier life. Silence counts from now: our own absence is nobody's death."""
        for node in nodes:
            self._load(node, now_ms)
        return []

    def _load(self, node: Node, now_ms: int) -> None:
        boots = Boots(node.retired_boot_ids, now_ms)
        self._entries[node.node_id] = self._dated(Entry(node, boots, silent_since_ms=now_ms, touched_ms=now_ms))

    def deafened(self, now_ms: int) -> None:
        """Hold nobody's silence against him from now on: what others hear does not reach us any more."""
        if self._deaf_since_ms is None:
            self._deaf_since_ms = now_ms

    def hears_again(self, now_ms: int) -> None:
        if self._deaf_since_ms is not None:
            self._deaf_since_ms = None
            self._listen_anew(now_ms)

    def clock_set(self, by_ms: int) -> None:
        """Follow our own wall clock, which somebody set: that is no time in which a node was silent."""
        for entry in self._entries.values():
            entry.shift(by_ms)
        self._departed.shift(by_ms)
        self._suspicion.shift(by_ms)
        if self._deaf_since_ms is not None:
            self._deaf_since_ms += by_ms

    def tick(self, now_ms: int, *, judging: bool = True) -> list[Effect]:
        """Look for silence; without `judging` another control plane says who is stale, dead or to be forgotten."""
        self._departed.forget(now_ms - self._forget_after_ms)
        if not self.hears:
            return []
        effects = self._doubt(now_ms)
        if judging and not self.suspects_itself:
            for entry in [entry for entry in self._entries.values() if entry.due_ms < now_ms]:
                effects += self._silent(entry, now_ms)
        return effects

    def _doubt(self, now_ms: int) -> list[Effect]:
        late, lost = {}, []
        for node_id, entry in self._entries.items():
            if entry.node.health in LOST:
                lost.append(node_id)
            elif entry.late_ms < now_ms:
                late[node_id] = entry.node.heartbeat_interval_s
        suspects = self._suspicion.suspects
        turn = self._suspicion.look(late, lost, len(self._entries) - len(late) - len(lost), now_ms)
        if turn is None:
            return []
        if turn is Turn.SUSPECTS:
            reason = f"{self._suspicion.suspects} of {len(self._entries)} nodes went silent at once"
            return [self._of_ourselves("control_plane_suspects_itself", reason, now_ms)]
        if turn is Turn.HEARS_AGAIN:
            self._listen_anew(now_ms)
            reason = f"most of {suspects} nodes are heard again"
        else:
            reason = f"most of {suspects} nodes stayed silent: they are judged like any other from now on"
        return [self._of_ourselves("control_plane_trusts_itself_again", reason, now_ms)]

    def _of_ourselves(self, kind: str, reason: str, now_ms: int) -> Emit:
        return Emit(Event(kind=kind, key=self._plane_id, at_ms=now_ms, data={"reason": reason}))

    def _listen_anew(self, now_ms: int) -> None:
        """Count silence from now on, where it began before."""
        for entry in self._entries.values():
            entry.silent_since_ms = max(entry.silent_since_ms, now_ms)
            self._dated(entry)

    def _silent(self, entry: Entry, now_ms: int) -> list[Effect]:
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

    def _open(self, message: Registration | Heartbeat, link: str, now_ms: int) -> Entry:
        """Begin a record, with nothing heard yet."""
        node_id, boot_id = check_node_id(message.facts.node_id), check_name(message.boot_id, "boot_id")
        if len(self._entries) >= self._nodes_max:
            raise QueueFull(
                f"{self._nodes_max} nodes are known, no more are taken in: raise nodes_max or delete dead nodes",
                field="nodes_max",
                retry_after_s=_FULL_RETRY_S,
            )
        left = self._departed.returned(node_id)
        boots = Boots((boot for boot in left.boot_ids if boot != boot_id), now_ms)
        node = Node(
            facts=message.facts,
            health=Health.REGISTERING,
            phase=message.phase,
            link=link,
            boot_id=boot_id,
            seq=_NEVER_HEARD,
            revision=_next(left.revision, now_ms),
            retired_boot_ids=boots.retired_ids,
            heartbeat_interval_s=message.heartbeat_interval_s,
            registered_at_ms=now_ms,
            last_seen_ms=now_ms,
            booted_at_ms=now_ms,
        )
        entry = Entry(node, boots, silent_since_ms=now_ms, touched_ms=now_ms, heard_here=True)
        self._entries[node_id] = self._dated(entry)
        return entry

    def _take(self, entry: Entry, message: Heartbeat, link: str, now_ms: int) -> list[Effect]:
        """Make the record what the heartbeat says, keeping what only the control plane knows."""
        node = entry.node
        if message.boot_id != node.boot_id:
            node = self._reboot(entry, node, message.boot_id, now_ms)
        entry.silent_since_ms, entry.heard_here = now_ms, True
        workers, refused = self._own_workers(entry, message.workers, now_ms)
        # What is the same stays the same object: whoever compares records from here on has it cheap.
        after = Node(
            facts=node.facts if message.facts == node.facts else message.facts,
            health=next_health(node.node_id, node.health, _OF_AGENT[message.status]),
            phase=message.phase,
            # Where nobody has decided yet, it was told so before its record was lost.
            draining=node.draining or (message.draining and not node.draining_at_ms),
            drained_services=node.drained_services,
            draining_at_ms=node.draining_at_ms,
            link=link,
            boot_id=message.boot_id,
            seq=message.seq,
            revision=_next(node.revision, now_ms),
            retired_boot_ids=node.retired_boot_ids,
            heartbeat_interval_s=message.heartbeat_interval_s,
            registered_at_ms=node.registered_at_ms,
            last_seen_ms=now_ms,
            booted_at_ms=node.booted_at_ms,
            resources=message.resources,
            gpus=node.gpus if message.gpus == node.gpus else message.gpus,
            workers=workers,
            services=node.services if message.services == node.services else message.services,
            processes=message.processes,
            reason=message.reason,
            artifacts=message.artifacts,
        )
        return [*self._write(entry, after, now_ms), *refused]

    def _write(self, entry: Entry, after: Node, now_ms: int) -> list[Effect]:
        """Put the record in place, with the facts that this changes."""
        before = entry.node
        if after.revision == before.revision:
            after = replace(after, revision=_next(before.revision, now_ms))
        self._put(entry, after, now_ms)
        return [SaveNode(after), *changes(before, after, now_ms)]

    def _put(self, entry: Entry, after: Node, now_ms: int) -> None:
        before, entry.node, entry.touched_ms = entry.node, after, now_ms
        if before.health in LOST and after.health not in LOST:
            entry.recovered_from = (before.boot_id, before.seq)
        self._dated(entry)

    def _drop(self, entry: Entry, kind: str, reason: str, now_ms: int, boot_ids: tuple[str, ...] = ()) -> list[Effect]:
        node = entry.node
        gone = NodeGone(node.node_id, boot_ids, _next(node.revision, now_ms))
        self._remember_left(gone, node.heartbeat_interval_s, now_ms)
        del self._entries[node.node_id]
        return [DropNode(node.node_id), node_event(node, kind, now_ms, reason=reason)]

    def _reboot(self, entry: Entry, node: Node, boot_id: str, now_ms: int) -> Node:
        entry.boots.replace(entry.node, check_name(boot_id, "boot_id"), now_ms)
        return replace(
            node, boot_id=boot_id, seq=_NEVER_HEARD, retired_boot_ids=entry.boots.retired_ids, booted_at_ms=now_ms
        )

    def _dated(self, entry: Entry) -> Entry:
        entry.date(self._limits, self._forget_after_ms)
        return entry

    # --- smaller judgements ------------------------------------------------------------------------------------------

    def _known(self, node_id: NodeId) -> Entry:
        entry = self._entries.get(node_id)
        if entry is None:
            raise NodeNotFound(f"no node {node_id!r} is known", field="node_id")
        return entry

    def _remember_left(self, gone: NodeGone, interval_s: float, now_ms: int) -> None:
        self._departed.remember(gone, now_ms + self._limits.late_after_ms(interval_s))

    def _own_workers(
        self, entry: Entry, workers: tuple[Worker, ...], now_ms: int
    ) -> tuple[tuple[Worker, ...], list[Effect]]:
        """Take only workers that carry the node's name; a refused one is told of once."""
        node = entry.node
        if workers == node.workers:
            return node.workers, []
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

    def _conflict(self, entry: Entry, boot_id: str, now_ms: int) -> list[Effect]:
        told_ms = entry.conflict_told_ms
        if told_ms is not None and now_ms - told_ms < _CONFLICT_EVERY_MS:
            return []
        entry.conflict_told_ms = now_ms
        reason = "two agents run under this node id: give one of them its own"
        boots = (entry.node.boot_id, boot_id)
        return [node_event(entry.node, "node_id_conflict", now_ms, boot_ids=boots, reason=reason)]


def _next(number: int, now_ms: int) -> int:
    """Count on, above what was seen on any control plane, and mostly in the order of time between them."""
    return max(number + 1, now_ms)


def _told_of(node: Node, now_ms: int) -> Emit:
    return node_event(node, "node_registered", now_ms, node_type=node.facts.node_type, link=node.link)
