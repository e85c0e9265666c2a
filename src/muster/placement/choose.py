"""Choosing one of many workers: what may serve a wish (`eligible`, kept by the caller), then the best now (`pick`)."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from muster.clock import Rng
from muster.placement.balance import UNKNOWN, Outlook, Seat, by_cost, cheapest, is_full, seat_of
from muster.placement.candidate import Candidate
from muster.placement.filters import Rejection, first_rejection, is_warm
from muster.placement.scores import Strategy, least_loaded, ranked_by_load, standing
from muster.placement.wish import Wish


class Eligibility(Struct, frozen=True, kw_only=True):
    """Every candidate is in `candidates` or in `rejections`; it holds until the fleet's version or the wish changes.

    `by_standing` has the same candidates, best first as long as all are equally loaded; its first `warm` have the
    wished model in memory. `seats` are those of `by_standing`.
    """

    candidates: tuple[Candidate, ...]  # by key
    rejections: tuple[Rejection, ...]
    by_standing: tuple[Candidate, ...]
    warm: int
    seats: tuple[Seat, ...]


class Decision(Struct, frozen=True, kw_only=True):
    chosen: Candidate | None
    rejections: tuple[Rejection, ...]
    ranked: tuple[str, ...]  # keys, best first


def eligible(wish: Wish, candidates: Sequence[Candidate], outlook: Outlook = UNKNOWN) -> Eligibility:
    fit: list[Candidate] = []
    unfit: list[Rejection] = []
    for candidate in candidates:
        rejection = first_rejection(candidate, wish)
        if rejection is None:
            fit.append(candidate)
        else:
            unfit.append(rejection)
    fit.sort(key=lambda candidate: candidate.key)
    warm = {candidate.key for candidate in fit if is_warm(candidate, wish)}
    by_standing = tuple(sorted(fit, key=lambda candidate: standing(candidate, warm=candidate.key in warm)))
    return Eligibility(
        candidates=tuple(fit),
        rejections=tuple(unfit),
        by_standing=by_standing,
        warm=len(warm),
        seats=tuple([seat_of(candidate, outlook) for candidate in by_standing]),
    )


def pick(
    eligibility: Eligibility,
    in_flight: Mapping[str, int],
    strategy: Strategy,
    turn: int,
    rng: Rng,
) -> Candidate:
    """Return the best candidate now; there must be one. `in_flight` counts the caller's own requests by key.

    Rotation spreads within 1 when `turn` counts the picks from this very list.
    """
    candidates = eligibility.candidates
    if len(candidates) == 1:
        return candidates[0]
    if strategy is Strategy.BALANCED:
        return cheapest(eligibility.seats, eligibility.warm, in_flight)
    if strategy is Strategy.LEAST_LOADED:
        return least_loaded(eligibility.by_standing, eligibility.warm, in_flight)
    return candidates[_start(len(candidates), strategy, turn, rng)]


def with_room(eligibility: Eligibility, in_flight: Mapping[str, int]) -> Candidate | None:
    """Return the first by standing that has a slot free of gateways' requests, when there is one."""
    return next((one for one in eligibility.by_standing if not is_full(one, in_flight)), None)


def choose(
    wish: Wish,
    candidates: Sequence[Candidate],
    in_flight: Mapping[str, int],
    strategy: Strategy,
    turn: int,
    rng: Rng,
    outlook: Outlook = UNKNOWN,
) -> Decision:
    """Choose with all reasons, for explanations and for callers that keep no list."""
    eligibility = eligible(wish, candidates, outlook)
    ranked = _rank(eligibility, in_flight, strategy, turn, rng) if eligibility.candidates else []
    return Decision(
        chosen=ranked[0] if ranked else None,
        rejections=eligibility.rejections,
        ranked=tuple(candidate.key for candidate in ranked),
    )


def _rank(
    eligibility: Eligibility, in_flight: Mapping[str, int], strategy: Strategy, turn: int, rng: Rng
) -> Sequence[Candidate]:
    if strategy is Strategy.BALANCED:
        return [seat.candidate for seat in by_cost(eligibility.seats, eligibility.warm, in_flight)]
    if strategy is Strategy.LEAST_LOADED:
        return ranked_by_load(eligibility.by_standing, eligibility.warm, in_flight)
    candidates = eligibility.candidates
    start = _start(len(candidates), strategy, turn, rng)
    return candidates[start:] + candidates[:start]


def _start(count: int, strategy: Strategy, turn: int, rng: Rng) -> int:
    return turn % count if strategy is Strategy.ROUND_ROBIN else int(rng.random() * count)
