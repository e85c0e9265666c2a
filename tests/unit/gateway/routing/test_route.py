from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound, NoWorker
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.catalog import find, offered
from muster.gateway.routing.route import Router
from muster.placement.candidate import Candidate
from muster.placement.scores import Strategy
from tests.chance import FixedChance
from tests.clocks import ManualClock
from tests.integration.gateway.fleet import BOTH, CHAT, EMBED, FleetTwin, worker


class CountingFleet(FleetTwin):
    """Looking at it takes time, as in a fleet of thousands."""

    def __init__(self, clock: ManualClock, *candidates: Candidate) -> None:
        super().__init__(*candidates)
        self._clock = clock
        self.looks = 0

    def candidates(self) -> Sequence[Candidate]:
        self.looks += 1
        self._clock.advance(0.01)
        return super().candidates()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def router(fleet: FleetTwin, clock: ManualClock, strategy: Strategy = Strategy.LEAST_LOADED) -> Router:
    return Router(fleet, strategy=strategy, rng=FixedChance(), clock=clock)


def taken(routes: Router, model: str = "smollm2-135m", capability: str = "completion") -> Candidate:
    candidate = routes.reserve(model, capability, openai.SPOKEN_BY)
    assert candidate is not None
    return candidate


A, B = worker("http://a", "a", slots=4), worker("http://b", "b", slots=4)


def test_reservations_spread_by_our_own_counts_and_are_given_back(clock: ManualClock):
    routes = router(FleetTwin(A, B), clock)
    reserved = [taken(routes) for _ in range(4)]
    assert sorted(candidate.key for candidate in reserved) == ["a/llama", "a/llama", "b/llama", "b/llama"]
    assert routes.in_flight == {"a/llama": 2, "b/llama": 2}
    for candidate in reserved:
        routes.release(candidate)
    assert routes.in_flight == {}


def test_the_default_tag_is_the_same_model(clock: ManualClock):
    routes = router(FleetTwin(A), clock)
    assert routes.reserve("smollm2-135m:latest", "completion", openai.SPOKEN_BY) is A
    assert routes.reserve("minilm", "embedding", openai.SPOKEN_BY) is A


def test_who_has_been_tried_is_not_chosen_again(clock: ManualClock):
    routes = router(FleetTwin(A, B), clock)
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY, frozenset({"a/llama"})) is B
    with pytest.raises(NoWorker):
        routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY, frozenset({"a/llama", "b/llama"}))
    assert routes.in_flight == {"b/llama": 1}


def test_rotation_counts_first_choices_only(clock: ManualClock):
    routes = router(FleetTwin(A, B), clock, Strategy.ROUND_ROBIN)
    first = taken(routes)
    routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY, frozenset({first.key}))
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY) is not first


def test_a_caller_of_ollamas_dialect_is_served_by_either_an_openai_caller_by_openais(clock: ManualClock):
    only_ollama = worker("http://c", "c", dialects=(Dialect.OLLAMA,))
    routes = router(FleetTwin(only_ollama), clock)
    assert routes.reserve("smollm2-135m", "completion", ollama.SPOKEN_BY) is only_ollama
    with pytest.raises(NoWorker):
        routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY)


def test_a_model_that_is_there_for_another_use_is_no_missing_model(clock: ManualClock):
    routes = router(FleetTwin(A), clock)
    with pytest.raises(InvalidInput, match="does not offer embedding") as problem:
        routes.reserve("smollm2-135m", "embedding", openai.SPOKEN_BY)
    assert problem.value.field == "model"


def test_a_change_of_the_fleet_is_seen_at_once_and_an_unknown_model_is_not_remembered(clock: ManualClock):
    fleet = FleetTwin()
    routes = router(fleet, clock)
    with pytest.raises(NoWorker):
        routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY)
    fleet.become(A)
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY) is A
    fleet.become(B)
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY) is B
    with pytest.raises(ModelNotFound):
        routes.reserve("other", "completion", openai.SPOKEN_BY)
    fleet.become(worker("http://a", "a", Model(name="other")))
    assert taken(routes, "other").key == "a/llama"


def test_a_fleet_that_is_costly_to_look_at_is_looked_at_less_often_than_it_changes(clock: ManualClock):
    fleet = CountingFleet(clock, A)
    routes = router(fleet, clock)
    for _ in range(50):
        fleet.version += 1
        routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY)
    assert fleet.looks == 1
    clock.advance(0.2)
    routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY)
    assert fleet.looks == 2


def test_the_catalog_has_each_model_once_from_workers_that_take_work():
    resident = Model(name="shared:latest", resident=True)
    fleet = (
        worker("http://a", "a", Model(name="shared"), CHAT),
        worker("http://b", "b", resident, dialects=BOTH),
        worker("http://c", "c", EMBED, draining=True),
        worker("http://d", "d", Model(name="ollama-only"), dialects=(Dialect.OLLAMA,)),
    )
    assert offered(fleet, openai.SPOKEN_BY) == [resident, CHAT]
    names = [model.name for model in offered(fleet, ollama.SPOKEN_BY)]
    assert names == ["ollama-only", "shared:latest", "smollm2-135m"]
    assert find(offered(fleet, openai.SPOKEN_BY), "shared") is resident
    assert find([], "shared") is None


def test_a_list_made_of_what_was_known_a_moment_ago_is_made_anew_though_the_fleet_changes_no_more(
    clock: ManualClock,
) -> None:
    fleet = CountingFleet(clock, worker("http://h:1", "a"))
    routed = router(fleet, clock)
    routed.reserve("smollm2-135m", "completion", frozenset(Dialect))
    fleet.become(worker("http://h:1", "a", draining=True), worker("http://h:2", "b"))
    assert taken(routed, "minilm", "embedding").node_id == "a"  # a moment old, for it cost much
    clock.advance(1.0)
    assert taken(routed, "minilm", "embedding").node_id == "b"


def test_a_slot_taken_is_a_slot_gone_and_whoever_listens_hears_when_it_is_back(clock: ManualClock) -> None:
    one = worker("http://a", "a", slots=1)
    routes = router(FleetTwin(one), clock)
    freed: list[str] = []
    routes.on_freed(lambda candidate: freed.append(candidate.key))
    assert routes.slots("smollm2-135m", "completion", openai.SPOKEN_BY) == 1
    first = taken(routes)
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY) is None
    assert routes.in_flight == {"a/llama": 1}
    routes.release(first)
    assert freed == ["a/llama"]
    assert taken(routes) is one


@pytest.mark.parametrize("strategy", list(Strategy))
def test_whoever_would_be_chosen_a_full_one_is_left_out_while_another_has_room(
    clock: ManualClock, strategy: Strategy
) -> None:
    small, large = worker("http://a", "a", slots=1), worker("http://b", "b", slots=3)
    routes = router(FleetTwin(small, large), clock, strategy)
    assert sorted(taken(routes).key for _ in range(4)) == ["a/llama", "b/llama", "b/llama", "b/llama"]
    assert routes.reserve("smollm2-135m", "completion", openai.SPOKEN_BY) is None
    assert routes.slots("smollm2-135m", "completion", openai.SPOKEN_BY) == 4


def test_what_others_have_the_engine_do_moves_requests_and_makes_none_wait(clock: ManualClock) -> None:
    fleet = FleetTwin(A, B)
    routes = router(fleet, clock, Strategy.BALANCED)
    fleet.become(replace(A, slots_busy=4, requests_waiting=2), B)
    assert [taken(routes).key for _ in range(3)] == ["b/llama"] * 3
    fleet.become(replace(A, slots_busy=4, requests_waiting=2))
    assert taken(routes).key == "a/llama"


def test_a_choice_says_who_was_chosen_among_whom(clock: ManualClock) -> None:
    routes = router(FleetTwin(A, B, worker("http://c", "c", draining=True)), clock, Strategy.BALANCED)
    taken(routes)
    taken(routes)
    choice = routes.last_choice
    assert choice is not None
    assert ([seat.key for seat in choice.field.seats], choice.in_flight) == (["a/llama", "b/llama"], (1, None))
    assert (choice.field.could_serve, choice.field.could_not, choice.at_home) == (2, 1, False)
