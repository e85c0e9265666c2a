"""Who in the fleet has which artifact, and the tickets by which one node gets it from another."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from muster.access import tickets
from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.domain.artifact import Artifact, ArtifactState
from muster.domain.node import Node
from muster.errors import InvalidInput
from muster.ids import NodeId, check_node_id
from muster.wire import ArtifactHolder, ArtifactQuery, ArtifactReply

_HOLDERS_MAX = 5
_CLAIM_MS = 30_000  # until a heartbeat of the node says itself that it fetches
_CLAIMS_MAX = 1_000
_KEPT_MAX = 10_000


class ArtifactDirectory:
    """Made of what heartbeats say; only who was told to go and fetch, and has not said so yet, is noted besides."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._claims: dict[str, tuple[NodeId, int]] = {}  # by name: who, until when

    def find(self, query: ArtifactQuery) -> ArtifactReply:
        check_node_id(query.node_id)
        if len(query.kept) > _KEPT_MAX:
            raise InvalidInput(f"at most {_KEPT_MAX} artifacts at a time", field="kept")
        asking = self._fleet.book.get(query.node_id)
        others = [node for node in self._fleet.nodes() if node.node_id != query.node_id and self._is_there(node)]
        in_pool, elsewhere = self._copies(set(query.kept), asking, others)
        if not query.name and not query.digest:
            return ArtifactReply(in_pool=in_pool, elsewhere=elsewhere)
        reachable = [node for node in others if _reaches(asking, node)]
        holders = self._holders(query, asking, reachable)
        fetching = () if holders else self._fetching(query, reachable)
        return ArtifactReply(holders=holders, fetching=fetching, in_pool=in_pool, elsewhere=elsewhere)

    def _is_there(self, node: Node) -> bool:
        return node.connected and not self._fleet.is_late(node)

    def _holders(self, query: ArtifactQuery, asking: Node | None, others: list[Node]) -> tuple[ArtifactHolder, ...]:
        """Return those of the same pool first, then whoever is near by name in a ring: not all ask the same one."""
        now_ms = self._clock.now_ms()
        pool = asking.facts.pool if asking is not None else None
        near = sorted(others, key=lambda node: (node.facts.pool != pool, node.node_id < query.node_id, node.node_id))
        found = (
            ArtifactHolder(
                node_id=node.node_id,
                url=node.artifacts.url or "",
                ticket=tickets.issue(node.artifacts.ticket_key or "", artifact.digest or "", now_ms),
                digest=artifact.digest or "",
                size_bytes=artifact.size_bytes,
                validator=artifact.validator,
            )
            for node in near
            for artifact in _on_disk(node)
            if _is_asked_for(artifact, query)
        )
        return tuple(holder for holder, _ in zip(found, range(_HOLDERS_MAX), strict=False))

    def _fetching(self, query: ArtifactQuery, others: list[Node]) -> tuple[NodeId, ...]:
        now_ms = self._clock.now_ms()
        fetching = {
            node.node_id
            for node in others
            for artifact in node.artifacts.kept
            if artifact.state is ArtifactState.FETCHING and artifact.name == query.name
        }
        who, until_ms = self._claims.get(query.name, (query.node_id, 0))
        if until_ms > now_ms and who != query.node_id and any(node.node_id == who for node in others):
            fetching.add(who)
        if query.fetches and not fetching:
            self._claim(query.name, query.node_id, now_ms)
        return tuple(sorted(fetching))

    def _claim(self, name: str, node_id: NodeId, now_ms: int) -> None:
        self._claims.pop(name, None)
        self._claims[name] = (node_id, now_ms + _CLAIM_MS)
        if len(self._claims) > _CLAIMS_MAX:
            del self._claims[next(iter(self._claims))]

    def _copies(
        self, kept: set[str], asking: Node | None, others: list[Node]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what others have too: in the asking node's pool, and elsewhere."""
        if not kept:
            return (), ()
        pool = asking.facts.pool if asking is not None else None
        in_pool: set[str] = set()
        anywhere: set[str] = set()
        for node in others:
            held = kept & {artifact.digest for artifact in _on_disk(node) if artifact.digest}
            anywhere |= held
            if node.facts.pool == pool:
                in_pool |= held
        return tuple(sorted(in_pool)), tuple(sorted(anywhere - in_pool))


def _on_disk(node: Node) -> Iterator[Artifact]:
    return (artifact for artifact in node.artifacts.kept if artifact.state is ArtifactState.ON_DISK)


def _is_asked_for(artifact: Artifact, query: ArtifactQuery) -> bool:
    if not artifact.digest or (query.name and artifact.name != query.name):
        return False
    return query.digest in {None, artifact.digest}


def _reaches(asking: Node | None, node: Node) -> bool:
    """Tell whether the way may exist: a loopback address leads from the same machine only."""
    if not node.artifacts.url or not node.artifacts.ticket_key:
        return False
    if not _is_loopback(urlsplit(node.artifacts.url).hostname or ""):
        return True
    return asking is not None and _is_loopback(asking.facts.address or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
