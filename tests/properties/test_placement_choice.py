"""Any fleet, any wish: who is chosen, and what the others are told."""

import random
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.domain.model import Model
from muster.domain.node import Health
from muster.domain.service import Dialect, ServiceStatus
from muster.errors import ModelNotFound, NoWorker, PoolNotFound
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.choose import choose, eligible, pick
from muster.placement.filters import FILTERS, is_warm
from muster.placement.refusal import no_candidate_error
from muster.placement.scores import Strategy, free_slots
from muster.placement.wish import Wish

names = st.sampled_from(["a", "b", "c"])
models = st.builds(
    Model,
    name=names,
    resident=st.sampled_from([True, False, None]),
    capabilities=st.sampled_from([("completion",), ("embedding",), ("completion", "embedding")]),
)
pools = st.none() | names
labels = st.dictionaries(names, names, max_size=1)
figures = st.none() | st.integers(0, 4)


seldom = st.integers(0, 5).map(lambda number: number == 0)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual, usual, usual, usual, *others])


@st.composite
def fleets(draw: st.DrawFn) -> list[Candidate]:
    conditions: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "dialects": mostly((Dialect.OPENAI,), (Dialect.OLLAMA,), ()),
            "status": mostly(ServiceStatus.RUNNING, *ServiceStatus),
            "health": mostly(Health.HEALTHY, *Health),
            "connected": seldom.map(lambda so: not so),
            "late": seldom,
            "draining": seldom,
            "pool": pools,
            "labels": labels,
            "slots": figures,
            "slots_busy": figures,
            "memory_free_mb": figures,
            "memory_total_mb": figures,
        }
    )
    return [
        Candidate(
            key=f"n{number}/llama",
            node_id=NodeId(f"n{number}"),
            service="llama",
            connector="llamacpp",
            url="http://x",
            models={model.name: model for model in draw(st.lists(models, max_size=3))},
            **draw(conditions),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


wishes = st.builds(
    Wish,
    model=st.none() | names,
    capability=st.sampled_from(["completion", "embedding"]),
    dialects=mostly(frozenset(Dialect), frozenset({Dialect.OLLAMA})),
    node_id=mostly(None, "n0"),
    pool=mostly(None, "a"),
    labels=mostly({}, {"a": "a"}),
    min_memory_mb=mostly(None, 2),
    exclude=mostly(frozenset(), frozenset({"n0/llama"})),
)
loads = st.dictionaries(st.sampled_from([f"n{number}/llama" for number in range(6)]), st.integers(0, 6))
strategies = st.sampled_from(Strategy)
turns = st.integers(0, 1000)
seeds = st.integers(0, 1000)


@given(wishes, fleets())
def test_every_candidate_is_either_eligible_or_rejected_with_a_reason_never_both(wish, fleet):
    eligibility = eligible(wish, fleet)
    told = [entry.key for entry in eligibility.candidates] + [entry.key for entry in eligibility.rejections]
    assert sorted(told) == sorted(candidate.key for candidate in fleet)
    assert all(entry.reason for entry in eligibility.rejections)
    assert sorted(entry.key for entry in eligibility.by_standing) == [entry.key for entry in eligibility.candidates]


@given(wishes, fleets(), loads, strategies, turns, seeds)
def test_the_chosen_one_passes_every_filter_and_is_the_first_of_the_ranked(wish, fleet, load, strategy, turn, seed):
    decision = choose(wish, fleet, load, strategy, turn, random.Random(seed))
    eligibility = eligible(wish, fleet)
    assert sorted(decision.ranked) == [candidate.key for candidate in eligibility.candidates]
    assert decision.rejections == eligibility.rejections
    if decision.chosen is None:
        assert not eligibility.candidates
        return
    assert not [rule for rule in FILTERS if rule(decision.chosen, wish)]
    assert decision.chosen.key == decision.ranked[0]
    assert pick(eligibility, load, strategy, turn, random.Random(seed)) == decision.chosen


@given(wishes, fleets(), loads)
def test_least_loaded_never_picks_a_fuller_one_but_for_a_resident_model_with_room(wish, fleet, load):
    eligibility = eligible(wish, fleet)
    if not eligibility.candidates:
        return
    chosen = pick(eligibility, load, Strategy.LEAST_LOADED, 0, random.Random(0))
    free = free_slots(chosen, load)
    with_room = [entry for entry in eligibility.candidates if is_warm(entry, wish) and free_slots(entry, load) > 0]
    rivals = with_room or eligibility.candidates
    assert chosen in rivals
    assert free == max(free_slots(entry, load) for entry in rivals)


@given(wishes, fleets(), turns, st.integers(0, 50))
def test_round_robin_spreads_within_one(wish, fleet, first_turn, picks):
    eligibility = eligible(wish, fleet)
    if not eligibility.candidates:
        return
    taken = Counter(
        pick(eligibility, {}, Strategy.ROUND_ROBIN, turn, random.Random(0)).key
        for turn in range(first_turn, first_turn + picks)
    )
    counts = [taken[candidate.key] for candidate in eligibility.candidates]
    assert max(counts) - min(counts) <= 1


@given(wishes, fleets(), loads, strategies, turns, seeds)
def test_the_order_of_the_fleet_does_not_matter(wish, fleet, load, strategy, turn, seed):
    one = choose(wish, fleet, load, strategy, turn, random.Random(seed))
    other = choose(wish, fleet[::-1], load, strategy, turn, random.Random(seed))
    assert one.ranked == other.ranked


@given(wishes, fleets())
def test_a_refusal_is_for_good_only_when_workers_are_there_and_none_has_the_model_for_it(wish, fleet):
    eligibility = eligible(wish, fleet)
    if eligibility.candidates:
        return
    error = no_candidate_error(wish, eligibility.rejections)
    fit = [
        candidate
        for candidate in fleet
        if wish.model in candidate.models and wish.capability in candidate.models[wish.model].capabilities
    ]
    pinned = (PoolNotFound,) if wish.pool is not None and fleet else ()
    assert isinstance(error, (NoWorker, *pinned) if wish.model is None or fit or not fleet else ModelNotFound)
