from muster.clock import Clock


class MemoryLeases:
    """A Leases."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, tuple[str, int]] = {}  # owner, and when it ends

    async def take(self, name: str, owner: str, ttl_s: float) -> bool:
        now_ms = self._clock.now_ms()
        holder, ends_ms = self._held.get(name, (owner, 0))
        if holder != owner and ends_ms > now_ms:
            return False
        self._held[name] = (owner, now_ms + round(ttl_s * 1000))
        return True

    async def holder(self, name: str) -> str | None:
        owner, ends_ms = self._held.get(name, ("", 0))
        return owner if ends_ms > self._clock.now_ms() else None

    async def release(self, name: str, owner: str) -> None:
        if self._held.get(name, ("", 0))[0] == owner:
            del self._held[name]
