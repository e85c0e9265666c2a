"""What one more request costs at each fit candidate, as one figure; and where requests of one conversation go.

The figure is about how long an answer would take there, in answers of a usual worker that is idle: longer the fuller it
is for its slots, and longer where tokens come slowly. What the gateway itself has in flight counts at once; what
others have there is known from the engine, seconds late, and is added to it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import inf

from msgspec import Struct

from muster.placement.candidate import Candidate

LOAD_BOUND = 1.25  # of the mean: a conversation goes where its text is known already, but not beyond this
_UNKNOWN_SLOTS = 1  # an engine that does not tell its slots can serve one request at a time; how many more is not known
_POINTS_MAX = 16_384
_USUAL = 1.0
_PRIME = 2**61 - 1  # multiplied and cut by it, two random numbers give a third


class Outlook(Struct, frozen=True, kw_only=True):
    """What is known of candidates beside their own word, by key: requests of others, and slowness (1: as most)."""

    outside: Mapping[str, int] = {}
    slowness: Mapping[str, float] = {}


class Seat(Struct, frozen=True, kw_only=True):
    """A candidate as the choice sees it. With n of our own in flight it costs `base + n * step`; `slots` are its bound.

    `point` is where it lies for conversations; 0 slots are no bound.
    """

    candidate: Candidate
    key: str
    slots: int
    weight: int
    outside: int
    slowness: float
    base: float
    step: float
    point: int


UNKNOWN = Outlook()


def seat_of(candidate: Candidate, outlook: Outlook) -> Seat:
    key = candidate.key
    outside = outlook.outside.get(key)
    if outside is None:
        outside = engine_load(candidate)
    slowness = outlook.slowness.get(key, _USUAL)
    weight = candidate.slots or _UNKNOWN_SLOTS
    step = slowness / weight
    return Seat(
        candidate=candidate,
        key=key,
        slots=candidate.slots or 0,
        weight=weight,
        outside=outside,
        slowness=slowness,
        base=slowness + outside * step,
        step=step,
        point=_point(key),
    )


def engine_load(candidate: Candidate) -> int:
    """Return what the engine says it runs and has waiting, whoever asked for it."""
    return (candidate.slots_busy or 0) + (candidate.requests_waiting or 0)


def is_full(candidate: Candidate, in_flight: Mapping[str, int]) -> bool:
    """Tell whether our own requests take all of its slots: these we know to the moment, and hear when they end."""
    return bool(candidate.slots) and in_flight.get(candidate.key, 0) >= (candidate.slots or 0)


def cheapest(seats: Sequence[Seat], warm: int, in_flight: Mapping[str, int]) -> Candidate:
    """Return who costs least; the first `warm` have the model in memory, and go first while one has a slot free.

    Only when all are full is a full one returned.
    """
    if 0 < warm < len(seats):
        best = _cheapest(seats[:warm], in_flight)
        if best is not None and in_flight.get(best.key, 0) + best.outside < best.weight:
            return best.candidate
    best = _cheapest(seats, in_flight)
    if best is None:
        best = min(seats, key=lambda seat: cost(seat, in_flight))
    return best.candidate


def _cheapest(seats: Sequence[Seat], in_flight: Mapping[str, int]) -> Seat | None:
    """Stand in the way of every request: a call for each seat would cost more than the rest."""
    best, least = None, inf
    mine_at = in_flight.get
    for seat in seats:
        mine = mine_at(seat.key)
        if mine is None:
            price = seat.base
        elif mine >= seat.slots > 0:
            continue
        else:
            price = seat.base + mine * seat.step
        if price < least:
            best, least = seat, price
    return best


def cost(seat: Seat, in_flight: Mapping[str, int]) -> float:
    return seat.base + in_flight.get(seat.key, 0) * seat.step


def by_cost(seats: Sequence[Seat], warm: int, in_flight: Mapping[str, int]) -> list[Seat]:
    """Return all as `cheapest` would choose them one after the other."""

    def rank(place: int) -> tuple[bool, bool, float, int]:
        seat = seats[place]
        mine = in_flight.get(seat.key, 0)
        goes_first = 0 < warm < len(seats) and place < warm and mine + seat.outside < seat.weight
        return (mine >= seat.slots > 0, not goes_first, cost(seat, in_flight), place)

    return [seats[place] for place in sorted(range(len(seats)), key=rank)]


def home(seats: Sequence[Seat], warm: int, in_flight: Mapping[str, int], conversation: int) -> Candidate | None:
    """Return where a conversation belongs; None while all who have the model in memory are full.

    Each conversation has an order of its own among the seats, which stays when others come and go; the first in it that
    is not loaded beyond the bound is its home.
    """
    among = seats[:warm] if warm else seats
    mine = [in_flight.get(seat.key, 0) for seat in among]
    bound = LOAD_BOUND * (sum(mine) + 1) / sum([seat.weight for seat in among])
    best, highest = None, -1
    for seat, own in zip(among, mine, strict=True):
        if own < bound * seat.weight and not own >= seat.slots > 0:
            height = seat.point * conversation % _PRIME
            if height > highest:
                best, highest = seat, height
    return None if best is None else best.candidate


@lru_cache(maxsize=_POINTS_MAX)
def _point(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=7).digest())
