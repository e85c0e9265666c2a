"""Which worker serves a request: placement's rules over the fleet as last seen, with our own counts in flight."""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.domain.model import canonical_model_name
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound
from muster.placement.balance import UNKNOWN, Outlook, Seat, home, is_full
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision, Eligibility, choose, eligible, pick, with_room
from muster.placement.filters import Rejection
from muster.placement.outside import Outside
from muster.placement.refusal import no_candidate_error
from muster.placement.scores import Strategy
from muster.placement.speed import Speeds
from muster.placement.wish import Wish
from muster.ports import FleetView

_Key = tuple[str, str, frozenset[Dialect]]
_NOTHING_TRIED: frozenset[str] = frozenset()
_WISHES_MAX = 4096  # models asked for that are remembered; beyond, all are forgotten and found anew
Conversation = Callable[[], int | None]
Freed = Callable[[Candidate], None]
_EXPLAINED = 8  # workers of which a choice keeps how loaded they were
_REBUILD_SHARE = 10  # a list is built again at the earliest after ten times what building it took


class Field(Struct, frozen=True):
    """Among whom is chosen, as far as it is explained.

    It keeps little of the eligibility: of a fleet that changes all the time each one would be held by somebody.
    """

    seats: tuple[Seat, ...]
    keys: tuple[str, ...]  # theirs
    could_serve: int
    rejections: tuple[Rejection, ...]
    could_not: int
    rule: str


class Choice(Struct, frozen=True, gc=False):
    """A reservation as it was made: among whom, and how many of our requests the first of them had (None: none)."""

    model: str
    field: Field
    in_flight: tuple[int | None, ...]
    at_home: bool


class _Choices:
    """Who can serve one kind of request, as of one version of the fleet."""

    __slots__ = ("eligibility", "field", "rebuild_after_s", "turn", "version")

    def __init__(self, eligibility: Eligibility, field: Field, version: int, rebuild_after_s: float) -> None:
        self.eligibility = eligibility
        self.field = field
        self.version = version
        self.rebuild_after_s = rebuild_after_s
        self.turn = 0


_RULES = {
    Strategy.BALANCED: "the answer was to be expected soonest there",
    Strategy.LEAST_LOADED: "it had the most free slots",
    Strategy.ROUND_ROBIN: "it was its turn",
    Strategy.RANDOM: "chance chose it",
}


class Router:
    """Reserve a worker for a request and release it; `in_flight` counts by candidate key."""

    def __init__(self, fleet: FleetView, *, strategy: Strategy, rng: Rng, clock: Clock) -> None:
        self._fleet = fleet
        self.strategy = strategy
        self._rule = _RULES[strategy]
        self._rng = rng
        self._clock = clock
        self._known: dict[_Key, _Choices] = {}
        self._holders: dict[str, list[Candidate]] = {}  # by model, as of one version of the fleet
        self._holders_version = -1
        self._holders_after_s = 0.0
        self._turns = 0  # of requests with pins
        self._outside = Outside()
        self._freed: Freed = lambda _: None
        self._speeds = Speeds()
        self.in_flight: dict[str, int] = {}
        self.last_choice: Choice | None = None

    def on_freed(self, listener: Freed) -> None:
        """Be called with each candidate that gets a slot back."""
        self._freed = listener

    def reserve(
        self,
        model: str,
        capability: str,
        dialects: frozenset[Dialect],
        tried: frozenset[str] = _NOTHING_TRIED,
        pins: Wish | None = None,
        conversation: Conversation | None = None,
        *,
        full_too: bool = False,
    ) -> Candidate | None:
        """Return None when all who could serve have their slots taken by our own requests, unless `full_too`.

        Raise ModelNotFound, InvalidInput or NoWorker, with the reasons of every candidate, when there is none. Pins are
        as many as callers: what fits them is found anew each time.
        """
        if pins is not None:
            wish = replace(pins, model=model, capability=capability, dialects=dialects, exclude=tried)
            eligibility = self._eligible(wish)
            field = self._field(eligibility)
            return self._reserved(model, eligibility, field, self._next_turn(), conversation, full_too=full_too)
        choices = self._known.get((model, capability, dialects))
        if choices is None or choices.version != self._fleet.version:
            choices = self._renewed(choices, model, capability, dialects)
        eligibility, field = choices.eligibility, choices.field
        if tried:
            eligibility = self._eligible(Wish(model=model, capability=capability, dialects=dialects, exclude=tried))
            field = self._field(eligibility)
        else:
            choices.turn += 1
        return self._reserved(model, eligibility, field, choices.turn, conversation, full_too=full_too)

    def slots(self, model: str, capability: str, dialects: frozenset[Dialect]) -> int:
        """Return how many requests for this the fleet takes at a time, as far as slots are known; 1 at least."""
        choices = self._known.get((model, capability, dialects))
        return max(1, sum(seat.slots for seat in choices.eligibility.seats)) if choices is not None else 1

    def is_held_beside(self, model: str, avoided: frozenset[str]) -> bool:
        """Tell whether anybody else has the model, in whatever state."""
        return any(candidate.key not in avoided for candidate in self._holding(model))

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _field(self, eligibility: Eligibility) -> Field:
        seats = eligibility.seats[:_EXPLAINED]
        return Field(
            seats,
            tuple(seat.key for seat in seats),
            len(eligibility.candidates),
            eligibility.rejections[:_EXPLAINED],
            len(eligibility.rejections),
            self._rule,
        )

    def _reserved(
        self,
        model: str,
        eligibility: Eligibility,
        field: Field,
        turn: int,
        conversation: Conversation | None,
        *,
        full_too: bool,
    ) -> Candidate | None:
        in_flight = self.in_flight
        candidate = at_home = None if conversation is None else self._at_home(eligibility, conversation)
        if candidate is None:
            candidate = pick(eligibility, in_flight, self.strategy, turn, self._rng)
        if candidate.slots and not full_too and is_full(candidate, in_flight):
            another = with_room(eligibility, in_flight)
            if another is None:
                return None
            candidate = another
        self.last_choice = Choice(model, field, tuple(map(in_flight.get, field.keys)), at_home is not None)
        mine = in_flight[candidate.key] = in_flight.get(candidate.key, 0) + 1
        self._outside.sent(candidate.key, mine)
        return candidate

    def _at_home(self, eligibility: Eligibility, conversation: Conversation) -> Candidate | None:
        if self.strategy is not Strategy.BALANCED or len(eligibility.candidates) == 1:
            return None
        number = conversation()
        return None if number is None else home(eligibility.seats, eligibility.warm, self.in_flight, number)

    def learn(self, key: str, model: str, tokens: int, took_s: float) -> None:
        """Note how fast a worker was; it counts when its choices are next looked at."""
        if self.strategy is Strategy.BALANCED:
            self._speeds.learn(key, canonical_model_name(model), tokens, took_s)

    def decide(self, wish: Wish, candidates: Sequence[Candidate] | None = None) -> Decision:
        """Say what `reserve` would do for this wish now, and why, among all candidates or those given."""
        among = self._fleet.candidates() if candidates is None else candidates
        return choose(wish, among, self.in_flight, self.strategy, self._turns, self._rng, self._outlook(wish, among))

    def release(self, candidate: Candidate) -> None:
        left = self.in_flight[candidate.key] - 1
        if left:
            self.in_flight[candidate.key] = left
        else:
            del self.in_flight[candidate.key]
        self._freed(candidate)

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
        rebuild_after_s = ended_s + _REBUILD_SHARE * (ended_s - started_s)
        choices = _Choices(eligibility, self._field(eligibility), self._holders_version, rebuild_after_s)
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
        holders = self._holding(wish.model or "")
        eligibility = eligible(wish, holders, self._outlook(wish, holders))
        if eligibility.candidates:
            return eligibility
        fleet = self._fleet.candidates()  # whoever is turned away hears of everybody
        eligibility = eligible(wish, fleet, self._outlook(wish, fleet))
        if eligibility.candidates:
            return eligibility
        error = no_candidate_error(wish, eligibility.rejections)
        if isinstance(error, ModelNotFound) and any(candidate.model(wish.model or "") for candidate in fleet):
            raise InvalidInput(error.message, field="model")  # it is there, and not for this use
        raise error

    def _outlook(self, wish: Wish, candidates: Sequence[Candidate]) -> Outlook:
        if self.strategy is not Strategy.BALANCED:
            return UNKNOWN
        outside = {candidate.key: self._outside.of(candidate, self.in_flight) for candidate in candidates}
        return Outlook(outside=outside, slowness=self._speeds.slowness(outside, canonical_model_name(wish.model or "")))
