"""The way between agents and the control plane: loses, doubles, delays and reorders, and can be cut at a node."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TypeVar

from muster.errors import MusterError
from muster.sim.chance import spread_ms
from muster.sim.faults import CALM, Faults
from muster.sim.plane import Plane
from muster.sim.timeline import Timeline

T = TypeVar("T")

_TIMEOUT_MS = 10_000  # how long a caller waits for an answer


class Network:
    """`planes` are those who answer at present, one as likely as another; without any every call is refused."""

    def __init__(self, timeline: Timeline, rng: Random, faults: Faults) -> None:
        self._timeline = timeline
        self._rng = rng
        self._faults = faults
        self.planes: list[Plane] = []
        self.cut: set[str] = set()
        self.counts: Counter[str] = Counter()

    def calm(self) -> None:
        """From now on every message arrives once, soon."""
        self._faults = CALM

    def call(
        self,
        caller: str,
        serve: Callable[[Plane], T],
        answered: Callable[[T], None],
        failed: Callable[[], None],
    ) -> None:
        """Have `serve` done at the control plane; then exactly one of `answered` and `failed` happens here.

        Whether a failed call was served nobody can know, and one that was answered may have been served twice.
        """
        sent_ms = self._timeline.now_ms()

        def give_up() -> None:
            self._timeline.after(sent_ms + _TIMEOUT_MS - self._timeline.now_ms(), failed)

        def arrive() -> None:
            if self._cut_off(caller):
                give_up()
                return
            plane = self.some_plane()
            if plane is None:
                failed()
                return
            try:
                answer = serve(plane)
            except MusterError:
                failed()
                return
            back_ms = self._under_way(caller)
            if back_ms is None or self._timeline.now_ms() + back_ms - sent_ms > _TIMEOUT_MS:
                give_up()
            else:
                self._timeline.after(back_ms, lambda: answered(answer))

        there_ms = self._under_way(caller)
        if there_ms is None:
            give_up()
        elif there_ms > _TIMEOUT_MS:
            give_up()
            self._timeline.after(there_ms, lambda: self._serve_unasked(caller, serve))
        else:
            self._timeline.after(there_ms, arrive)
        if self._faults.doubled and self._rng.random() < self._faults.doubled:
            self.counts["messages doubled"] += 1
            double_ms = spread_ms(self._rng, (0, self._faults.straggle_s))
            self._timeline.after(double_ms, lambda: self._serve_unasked(caller, serve))

    def _serve_unasked(self, caller: str, serve: Callable[[Plane], object]) -> None:
        """Let a message arrive that nobody waits for."""
        plane = self.some_plane()
        if plane is not None and not self._cut_off(caller):
            with suppress(MusterError):  # there is nobody to tell
                serve(plane)

    def some_plane(self) -> Plane | None:
        return self._rng.choice(self.planes) if self.planes else None

    def _cut_off(self, caller: str) -> bool:
        if caller in self.cut:
            self.counts["messages cut"] += 1
            return True
        return False

    def _under_way(self, caller: str) -> int | None:
        """Return how long a message takes, None when it never arrives."""
        faults = self._faults
        if self._cut_off(caller):
            return None
        if faults.lost and self._rng.random() < faults.lost:
            self.counts["messages lost"] += 1
            return None
        if faults.straggling and self._rng.random() < faults.straggling:
            self.counts["messages late"] += 1
            return spread_ms(self._rng, (0, faults.straggle_s))
        return spread_ms(self._rng, faults.delay_s)
