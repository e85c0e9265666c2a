"""When most nodes go silent at once, it is more likely that we do not hear than that all of them died.

Looked at from tick to tick. While we suspect ourselves nobody is judged; it ends when most of the suspects are heard
again, or when so much time has passed that it must be true after all.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from msgspec import Struct

from muster.ids import NodeId

_NODES_MIN = 4  # fewer may well fail together: a switch, a rack, a test
_WINDOW_INTERVALS = 1.5  # nodes that fall silent together go late within one interval of theirs
_WINDOW_MS_MIN = 2_000  # and we look only so often


class Turn(StrEnum):
    SUSPECTS = "suspects"
    HEARS_AGAIN = "hears_again"
    GIVES_UP = "gives_up"  # they stayed silent for longer than we may doubt it


class _Late(Struct):
    since_ms: int
    window_ms: float


class Suspicion:
    def __init__(self, bound_s: float) -> None:
        self._bound_ms = round(bound_s * 1000)
        self._late: dict[NodeId, _Late] = {}
        self._suspects: set[NodeId] = set()
        self._until_ms: int | None = None

    @property
    def active(self) -> bool:
        return self._until_ms is not None

    @property
    def suspects(self) -> int:
        """How many nodes seem late because of us."""
        return len(self._suspects)

    def excuses(self, node_id: NodeId) -> bool:
        """Whether its silence may be our own deafness."""
        return node_id in self._suspects

    def look(self, late: Mapping[NodeId, float], lost: Collection[NodeId], on_time: int, now_ms: int) -> Turn | None:
        """Take in who is late by now, with its heartbeat interval in seconds, who was lost before, how many are not."""
        self._late = {
            node_id: self._late.get(node_id)
            or _Late(now_ms, max(_WINDOW_MS_MIN, _WINDOW_INTERVALS * 1000 * interval_s))
            for node_id, interval_s in late.items()
        }
        recent = {node_id for node_id, entry in self._late.items() if now_ms - entry.since_ms <= entry.window_ms}
        if self._until_ms is not None:
            return self._go_on(recent, lost, now_ms, self._until_ms)
        if len(recent) < _NODES_MIN or len(recent) <= on_time:
            return None
        self._suspects = recent
        self._until_ms = now_ms + self._bound_ms
        return Turn.SUSPECTS

    def _go_on(self, recent: set[NodeId], lost: Collection[NodeId], now_ms: int, until_ms: int) -> Turn | None:
        self._suspects |= recent
        back = self._suspects.difference(self._late, lost)
        if 2 * len(back) > len(self._suspects):
            return self._end(Turn.HEARS_AGAIN)
        return self._end(Turn.GIVES_UP) if now_ms >= until_ms else None

    def _end(self, turn: Turn) -> Turn:
        self._suspects, self._until_ms = set(), None
        return turn

    def shift(self, by_ms: int) -> None:
        """Move along with our clock, which was set."""
        for entry in self._late.values():
            entry.since_ms += by_ms
        if self._until_ms is not None:
            self._until_ms += by_ms
