from muster.domain.standing import StoreStanding
from muster.stores.memory.log import MemoryLog


class MemoryProbe:
    """A StoreProbe. There is no server, so most of what one tells is not known."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def standing(self) -> StoreStanding:
        return StoreStanding(product="memory", ping_ms=0.0, keys=0, log_entries=self._log.entries)
