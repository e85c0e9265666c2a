"""Which worker serves a request: placement's rules over the fleet as last seen, with our own counts in flight."""

from collections.abc import Sequence

from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.domain.model import canonical_model_name
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision, Eligibility, choose, eligible, pick
from muster.placement.refusal import no_candidate_error
from muster.placement.scores import Strategy
from muster.placement.wish import Wish
from muster.ports import FleetView

_Key = tuple[str, str, frozenset[Dialect]]
_NOTHING_TRIED: frozenset[str] = frozenset()
_WISHES_MAX = 4096  # models asked for that are remembered; beyond, all are forgotten and found anew
_REBUILD_SHARE = 10  # a list is built again at the earliest after ten times what building it took


class _Choices:
    """Who can serve one kind of request, as of one version of the fleet."""

    __slots__ = ("eligibility", "rebuild_after_s", "turn", "version")

    def __init__(self, eligibility: Eligibility, version: int, rebuild_after_s: float) -> None:
        self.eligibility = eligibility
        self.version = version
        self.rebuild_after_s = rebuild_after_s
        self.turn = 0


class Router:
    """Reserve a worker for a request and release it; `in_flight` counts by candidate key."""

    def __init__(self, fleet: FleetView, *, strategy: Strategy, rng: Rng, clock: Clock) -> None:
        self._fleet = fleet
        self._strategy = strategy
        self._rng = rng
        self._clock = clock
        self._known: dict[_Key, _Choices] = {}
        self._holders: dict[str, list[Candidate]] = {}  # by model, as of one version of the fleet
        self._holders_version = -1
        self._holders_after_s = 0.0
        self._turns = 0  # of requests with pins
        self.in_flight: dict[str, int] = {}

    def reserve(
        self,
        model: str,
        capability: str,
        dialects: frozenset[Dialect],
        tried: frozenset[str] = _NOTHING_TRIED,
        pins: Wish | None = None,
    ) -> Candidate:
        """Raise ModelNotFound, InvalidInput or NoWorker, with the reasons of every candidate, when there is none.

        Pins are as many as callers: what fits them is found anew each time.
        """
        if pins is not None:
            wish = replace(pins, model=model, capability=capability, dialects=dialects, exclude=tried)
            return self._reserved(self._eligible(wish), turn=self._next_turn())
        choices = self._known.get((model, capability, dialects))
        if choices is None or choices.version != self._fleet.version:
            choices = self._renewed(choices, model, capability, dialects)
        eligibility = choices.eligibility
        if tried:
            eligibility = self._eligible(Wish(model=model, capability=capability, dialects=dialects, exclude=tried))
        else:
            choices.turn += 1
        return self._reserved(eligibility, choices.turn)

    def is_held_beside(self, model: str, avoided: frozenset[str]) -> bool:
        """Tell whether anybody else has the model, in whatever state."""
        return any(candidate.key not in avoided for candidate in self._holding(model))

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _reserved(self, eligibility: Eligibility, turn: int) -> Candidate:
        candidate = pick(eligibility, self.in_flight, self._strategy, turn, self._rng)
        self.in_flight[candidate.key] = self.in_flight.get(candidate.key, 0) + 1
        return candidate

    def decide(self, wish: Wish, candidates: Sequence[Candidate] | None = None) -> Decision:
        """Say what `reserve` would do for this wish now, and why, among all candidates or those given."""
        among = self._fleet.candidates() if candidates is None else candidates
        return choose(wish, among, self.in_flight, self._strategy, self._turns, self._rng)

    def release(self, candidate: Candidate) -> None:
        left = self.in_flight[candidate.key] - 1
        if left:
            self.in_flight[candidate.key] = left
        else:
            del self.in_flight[candidate.key]

    def _renewed(self, known: _Choices | None, model: str, capability: str, dialects: frozenset[Dialect]) -> _Choices:
        """Heartbeats of a large fleet change its version all the time: old choices may serve while new ones cost."""
        key = (model, capability, dialects)
        started_s = self._clock.monotonic_s()
        if known is not None and started_s < known.rebuild_after_s:
            return known
        self._known.pop(key, None)
        eligibility = self._eligible(Wish(model=model, capability=capability, dialects=dialects))
        ended_s = self._clock.monotonic_s()
        if len(self._known) >= _WISHES_MAX:
            self._known.clear()
        choices = _Choices(eligibility, self._holders_version, ended_s + _REBUILD_SHARE * (ended_s - started_s))
        if known is not None:
            choices.turn = known.turn
        self._known[key] = choices
        return choices

    def _holding(self, model: str) -> list[Candidate]:
        """Return who has the model: of a large fleet mostly a few. As with choices, what is old may serve a while."""
        started_s = self._clock.monotonic_s()
        if self._holders_version != self._fleet.version and started_s >= self._holders_after_s:
            self._holders_version = self._fleet.version
            self._holders = {}
            for candidate in self._fleet.candidates():
                for name in candidate.models:
                    self._holders.setdefault(name, []).append(candidate)
            ended_s = self._clock.monotonic_s()
            self._holders_after_s = ended_s + _REBUILD_SHARE * (ended_s - started_s)
        return self._holders.get(canonical_model_name(model), [])

    def _eligible(self, wish: Wish) -> Eligibility:
        eligibility = eligible(wish, self._holding(wish.model or ""))
        if eligibility.candidates:
            return eligibility
        fleet = self._fleet.candidates()  # whoever is turned away hears of everybody
        eligibility = eligible(wish, fleet)
        if eligibility.candidates:
            return eligibility
        error = no_candidate_error(wish, eligibility.rejections)
        if isinstance(error, ModelNotFound) and any(candidate.model(wish.model or "") for candidate in fleet):
            raise InvalidInput(error.message, field="model")  # it is there, and not for this use
        raise error
