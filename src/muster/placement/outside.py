"""How much of what an engine tells is not ours: others ask it too, and so do jobs."""

from collections.abc import Mapping

from muster.placement.balance import engine_load
from muster.placement.candidate import Candidate

_KNOWN_MAX = 20_000


class Outside:
    """An engine's word is seconds old, and has gateways' requests in it: as many as there were at most since then."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}  # by key: its load when it last changed, what of that is not ours
        self._peaks: dict[str, int] = {}

    def sent(self, key: str, in_flight: int) -> None:
        if in_flight > self._peaks.get(key, 0):
            self._peaks[key] = in_flight

    def of(self, candidate: Candidate, in_flight: Mapping[str, int]) -> int:
        key, load = candidate.key, engine_load(candidate)
        told = self._told.get(key)
        if told is not None and told[0] == load:
            return told[1]
        if len(self._told) >= _KNOWN_MAX:
            self._told.clear()  # machines come and go for years
            self._peaks.clear()
        mine = in_flight.get(key, 0)
        outside = max(0, load - max(mine, self._peaks.get(key, 0)))
        self._told[key] = load, outside
        self._peaks[key] = mine
        return outside
