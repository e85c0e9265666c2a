"""What control planes tell each other in a simulated world: late by a little, and not at all while they are cut off."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from random import Random

from muster.errors import StoreUnavailable
from muster.sim.chance import spread_ms
from muster.sim.timeline import Timeline

Hear = Callable[[bytes], None]

_DELAY_S = (0.001, 0.02)


class SimBus:
    """A Bus. Whoever is cut off hears nothing, and learns of it by that alone."""

    def __init__(self, timeline: Timeline, rng: Random) -> None:
        self._timeline = timeline
        self._rng = rng
        self._listeners: dict[str, Hear] = {}
        self.cut: set[str] = set()
        self.away = False
        self.counts: Counter[str] = Counter()

    def join(self, name: str, hear: Hear) -> None:
        """Have what is published told to `name`; who had the name before hears no more."""
        self._listeners[name] = hear

    def leave(self, name: str) -> None:
        del self._listeners[name]

    async def publish(self, topic: str, data: bytes) -> None:
        """Tell everybody; the simulated ones speak of one topic only."""
        if self.away:
            raise StoreUnavailable(f"nobody takes what is said about {topic}")
        at_ms = spread_ms(self._rng, _DELAY_S)  # one server, one order for all
        for name, hear in self._listeners.items():
            if name in self.cut:
                self.counts["news missed"] += 1
            else:
                self._timeline.after(at_ms, partial(self._deliver, name, hear, data))

    def _deliver(self, name: str, hear: Hear, data: bytes) -> None:
        if self._listeners.get(name) is hear:
            hear(data)

    def subscribe(self, topic: str, ready: object = None) -> AsyncIterator[bytes]:
        """Refuse: who waits here would need time to pass, which only the timeline may do."""
        del ready
        raise StoreUnavailable(f"join to hear of {topic}")
