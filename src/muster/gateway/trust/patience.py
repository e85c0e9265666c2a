"""How long each worker may be waited for, learned from how it has answered before. Pure: times come in.

Two waits are learned for each worker and model: until the answer begins, by the size of what is asked, and the longest
silence within an answer. A deadline is a high quantile of what was seen, times a factor, within a floor and the
setting. Who has answered too few times gets the setting. Every wait given up doubles the next ones, until an answer
comes in time: a worker that has become slow is not taken for a dead one for ever.
"""

import math
from collections import OrderedDict

from msgspec import Struct

from muster.gateway.limits import GatewayLimits

_SHARE = 0.99
_STEPS_PER_DOUBLING = 4  # so a quantile is told up to 19 % too high
_SHORTEST_S = 0.001
_SAMPLES_MAX = 512  # then each count is halved: what is old fades
_SIZE_STEP = 4  # prompts are told apart by powers of it, from _SMALLEST_BYTES on
_SMALLEST_BYTES = 1024
_KNOWN_MAX = 4096  # workers and models that are remembered; the one not heard of for longest is forgotten
_SHOWN_MAX = 100

Key = tuple[str, str]  # a worker's key and a model


class Spread:
    """Durations counted in steps that grow, so that a quantile costs nothing to keep up."""

    __slots__ = ("_counts", "samples")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.samples = 0

    def add(self, duration_s: float) -> None:
        step = math.ceil(math.log2(max(duration_s, _SHORTEST_S) / _SHORTEST_S) * _STEPS_PER_DOUBLING)
        self._counts[step] = self._counts.get(step, 0) + 1
        self.samples += 1
        if self.samples > _SAMPLES_MAX:
            self._counts = {step: count // 2 for step, count in self._counts.items() if count > 1}
            self.samples = sum(self._counts.values())

    def quantile(self, share: float) -> float:
        """Return a duration that this share did not exceed; there must be samples."""
        left = math.ceil(share * self.samples)
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left <= 0:
                break
        return _SHORTEST_S * math.pow(2.0, step / _STEPS_PER_DOUBLING)


class Waits(Struct, frozen=True, kw_only=True):
    """The deadlines of one worker and model; `learned` is false where both are as set."""

    worker: str
    model: str
    answers: int
    first_byte_s: float
    silence_s: float
    learned: bool


class _Known:
    __slots__ = ("first", "given_up", "silence")

    def __init__(self) -> None:
        self.first: dict[int, Spread] = {}  # by class of size
        self.silence = Spread()
        self.given_up = 0  # times in a row


class Patience:
    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._known: OrderedDict[Key, _Known] = OrderedDict()

    @property
    def most_s(self) -> float:
        return self._limits.first_byte_timeout_s

    def first_byte_s(self, key: Key, size_bytes: int) -> float:
        limits = self._limits
        known = self._known.get(key)
        seen_s = None if known is None else self._seen_first_s(known, _class_of(size_bytes))
        return self._deadline_s(known, seen_s, limits.first_byte_floor_s, limits.first_byte_timeout_s)

    def silence_s(self, key: Key) -> float:
        limits = self._limits
        known = self._known.get(key)
        seen_s = None
        if known is not None and known.silence.samples >= limits.patience_samples_min:
            seen_s = known.silence.quantile(_SHARE)
        return self._deadline_s(known, seen_s, limits.idle_floor_s, limits.idle_timeout_s)

    def began(self, key: Key, size_bytes: int, after_s: float) -> None:
        """Learn from the first byte of an answer."""
        self._of(key).first.setdefault(_class_of(size_bytes), Spread()).add(after_s)

    def answered(self, key: Key, longest_silence_s: float | None) -> None:
        """Learn from a whole answer; one that came in one piece has no silence."""
        known = self._of(key)
        known.given_up = 0
        if longest_silence_s is not None:
            known.silence.add(longest_silence_s)

    def gave_up(self, key: Key) -> None:
        self._of(key).given_up += 1

    def view(self) -> list[Waits]:
        """Show those heard of last, for an everyday request."""
        return [
            Waits(
                worker=key[0],
                model=key[1],
                answers=sum(spread.samples for spread in known.first.values()),
                first_byte_s=round(self.first_byte_s(key, 0), 3),
                silence_s=round(self.silence_s(key), 3),
                learned=any(
                    spread.samples >= self._limits.patience_samples_min
                    for spread in (known.silence, *known.first.values())
                ),
            )
            for key, known in sorted(list(self._known.items())[-_SHOWN_MAX:])
        ]

    def _of(self, key: Key) -> _Known:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    def _seen_first_s(self, known: _Known, wanted: int) -> float | None:
        """Of a size never asked for it is known at most what the next larger took, or the next smaller, scaled up."""
        enough = self._limits.patience_samples_min
        sizes = sorted(size for size, spread in known.first.items() if spread.samples >= enough)
        if not sizes:
            return None
        nearest = next((size for size in sizes if size >= wanted), sizes[-1])
        return known.first[nearest].quantile(_SHARE) * float(_SIZE_STEP) ** max(0, wanted - nearest)

    def _deadline_s(self, known: _Known | None, seen_s: float | None, floor_s: float, setting_s: float) -> float:
        if known is None or seen_s is None or not self._limits.patience_factor:
            return setting_s
        doubled = 2.0 ** min(known.given_up, 16)
        return min(setting_s, max(floor_s, seen_s * self._limits.patience_factor) * doubled)


def _class_of(size_bytes: int) -> int:
    size, found = _SMALLEST_BYTES, 0
    while size_bytes > size:
        size *= _SIZE_STEP
        found += 1
    return found
