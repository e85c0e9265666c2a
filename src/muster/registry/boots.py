"""Which boots of an agent count. A node id has one current boot; those before it are retired.

Messages of a retired boot are mostly old ones that were long on the way, and must not count. Two cases look alike at
first and are told apart by time alone (the window is the silence after which a node is late):

- Two agents run under one id. Both go on talking: the current boot is heard, and the retired one still is, longer
  than a window after it was retired. It is a rival, and is told so.
- The current boot was never alive: one stray message of an earlier boot, unknown to us, arrived last. It stays
  silent while the retired boot talks on. After a window of that the retired boot is current again, so that no stray
  message can lock out a live node.
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from muster.domain.node import Node

RETIRED_MAX = 8
_NEVER = -1


class Standing(StrEnum):
    """Of the boot that a heartbeat comes from."""

    CURRENT = "current"
    NEW = "new"
    OLD = "old"
    RIVAL = "rival"
    RETURNED = "returned"


class _Retired(Struct):
    retired_ms: int
    seq: int
    alone_since_ms: int = 0  # since when it talks while the current boot is silent


class Boots:
    """The retired boots of one node, newest last."""

    def __init__(self, retired_boot_ids: Iterable[str], now_ms: int) -> None:
        self._retired = {boot_id: _Retired(now_ms, seq=_NEVER) for boot_id in retired_boot_ids}

    @property
    def retired_ids(self) -> tuple[str, ...]:
        return tuple(self._retired)

    def is_retired(self, boot_id: str) -> bool:
        return boot_id in self._retired

    def standing(
        self, node: Node, boot_id: str, seq: int, now_ms: int, *, silent_since_ms: int, window_ms: int
    ) -> Standing:
        """Judge a heartbeat; `silent_since_ms` is when the current boot was last heard."""
        if boot_id == node.boot_id:
            return Standing.CURRENT if seq > node.seq else Standing.OLD
        past = self._retired.get(boot_id)
        if past is None:
            return Standing.NEW
        if seq <= past.seq:
            return Standing.OLD
        past.seq = seq
        if now_ms - silent_since_ms <= window_ms:
            return Standing.RIVAL if now_ms - past.retired_ms > window_ms else Standing.OLD
        if past.alone_since_ms <= silent_since_ms:
            past.alone_since_ms = now_ms
        return Standing.RETURNED if now_ms - past.alone_since_ms >= window_ms else Standing.OLD

    def replace(self, node: Node, boot_id: str, now_ms: int) -> None:
        """Retire the node's boot in favour of `boot_id`."""
        self._retired.pop(boot_id, None)
        self._retired[node.boot_id] = _Retired(now_ms, node.seq)
        while len(self._retired) > RETIRED_MAX:
            del self._retired[next(iter(self._retired))]

    def adopt(self, before: Node, after: Node, now_ms: int) -> None:
        """Take over what another control plane knows of the boots; what we heard of them ourselves is kept."""
        known = dict(self._retired)
        if before.boot_id != after.boot_id:
            known[before.boot_id] = _Retired(now_ms, before.seq)
        self._retired = {
            boot_id: known.get(boot_id, _Retired(now_ms, seq=_NEVER)) for boot_id in after.retired_boot_ids
        }

    def shift(self, by_ms: int) -> None:
        """Move along with our clock, which was set."""
        for past in self._retired.values():
            past.retired_ms += by_ms
            past.alone_since_ms += by_ms
