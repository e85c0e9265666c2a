"""What goes wrong: how often, and the hand that does it."""

from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec import Struct

from muster.sim.chance import spread_ms
from muster.sim.timeline import Timeline


class Faults(Struct, frozen=True, kw_only=True):
    """Shares are of messages, each way; rates are per hour, those of nodes for each node."""

    lost: float = 0.02
    doubled: float = 0.02
    straggling: float = 0.01  # takes up to straggle_s instead of delay_s: arrives out of order
    delay_s: tuple[float, float] = (0.001, 0.05)
    straggle_s: float = 40.0
    node_crashes: float = 3.0
    node_stops: float = 1.0  # polite: returns its jobs, deregisters, starts again
    node_cuts: float = 3.0  # lives on, unheard
    node_away_s: tuple[float, float] = (1.0, 200.0)
    plane_restarts: float = 6.0
    plane_away_s: tuple[float, float] = (0.5, 60.0)
    plane_cuts: float = 6.0  # from the others, where there are others
    store_outages: float = 6.0
    store_away_s: tuple[float, float] = (0.5, 20.0)


CALM = Faults(
    lost=0,
    doubled=0,
    straggling=0,
    node_crashes=0,
    node_stops=0,
    node_cuts=0,
    plane_restarts=0,
    plane_cuts=0,
    store_outages=0,
)

_HOUR_MS = 3_600_000


class Victim(Struct, frozen=True):
    """Something that can be hit in one way; `strike` says whether it could be, `heal` undoes it."""

    kind: str
    per_hour: float
    away_s: tuple[float, float]
    strike: Callable[[], bool]
    heal: Callable[[], None]


class Nemesis:
    """Strikes each victim at random times up to an hour of peace, and always heals what it struck."""

    def __init__(self, timeline: Timeline, rng: Random, peace_ms: int) -> None:
        self._timeline = timeline
        self._rng = rng
        self._peace_ms = peace_ms
        self.counts: Counter[str] = Counter()

    def threaten(self, victim: Victim) -> None:
        if victim.per_hour <= 0:
            return
        wait_ms = round(self._rng.expovariate(victim.per_hour) * _HOUR_MS)
        if self._timeline.now_ms() + wait_ms < self._peace_ms:
            self._timeline.after(wait_ms, lambda: self._strike(victim))

    def _strike(self, victim: Victim) -> None:
        if not victim.strike():
            self.threaten(victim)
            return
        self.counts[victim.kind] += 1
        left_ms = self._peace_ms - self._timeline.now_ms()

        def heal() -> None:
            victim.heal()
            self.threaten(victim)

        self._timeline.after(min(left_ms, spread_ms(self._rng, victim.away_s)), heal)
