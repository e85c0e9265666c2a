"""Which of several fit candidates is best."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from muster.placement.candidate import Candidate

# An engine that does not tell its slots can serve one request at a time; how many more is not known.
_UNKNOWN_SLOTS = 1


class Strategy(StrEnum):
    BALANCED = "balanced"
    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


def standing(candidate: Candidate, *, warm: bool) -> tuple[bool, bool, int, str]:
    """Sort by what one more request does not change: warm first, most free GPU memory, unknown last, then the key."""
    free_mb = candidate.memory_free_mb
    return (not warm, free_mb is None, -(free_mb or 0), candidate.key)


def free_slots(candidate: Candidate, in_flight: Mapping[str, int]) -> int:
    """Return slots less those busy by our own count or the worker's word; below 0 it has a queue of its own."""
    slots, busy = candidate.slots, candidate.slots_busy
    in_use = in_flight.get(candidate.key, 0)
    if busy is not None and busy > in_use:
        in_use = busy
    return (_UNKNOWN_SLOTS if slots is None else slots) - in_use


def least_loaded(by_standing: Sequence[Candidate], warm: int, in_flight: Mapping[str, int]) -> Candidate:
    """Return the one with most free slots, the first by standing among equals.

    The first `warm` have the wished model in memory: while one of them has a free slot, it wins over all others.
    """
    best, most = by_standing[0], free_slots(by_standing[0], in_flight)
    for place in range(1, len(by_standing)):
        if place == warm and most > 0:
            break
        candidate = by_standing[place]
        free = free_slots(candidate, in_flight)
        if free > most:
            best, most = candidate, free
    return best


def ranked_by_load(by_standing: Sequence[Candidate], warm: int, in_flight: Mapping[str, int]) -> list[Candidate]:
    """Return all as `least_loaded` would choose them one after the other."""
    free = [free_slots(candidate, in_flight) for candidate in by_standing]
    places = sorted(range(len(free)), key=lambda place: (place >= warm or free[place] <= 0, -free[place], place))
    return [by_standing[place] for place in places]
