from muster.clock import Clock


class MemoryTurns:
    """Turns."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s: dict[str, float] = {}

    async def take(self, name: str, for_s: float) -> bool:
        now_s = self._clock.monotonic_s()
        self._until_s = {taken: until_s for taken, until_s in self._until_s.items() if until_s > now_s}
        if name in self._until_s:
            return False
        self._until_s[name] = now_s + for_s
        return True
