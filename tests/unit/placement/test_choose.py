from collections import Counter
from collections.abc import Mapping
from typing import Any

from muster.domain.model import Model
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision, choose, eligible, pick
from muster.placement.scores import Strategy, free_slots
from muster.placement.wish import Wish
from tests.chance import FixedChance
from tests.unit.placement.makers import candidate, warm

WISH = Wish(model="m")


def decide(
    *candidates: Candidate,
    in_flight: Mapping[str, int] | None = None,
    strategy: Strategy = Strategy.LEAST_LOADED,
    turn: int = 0,
    chance: float = 0.0,
    wish: Wish = WISH,
) -> Decision:
    return choose(wish, candidates, in_flight or {}, strategy, turn, FixedChance(chance))


def nodes(decision: Decision) -> str:
    """Return the ranked nodes, best first, as one word: their names are single letters here."""
    return "".join(key.partition("/")[0] for key in decision.ranked)


def on(node: str, **fields: Any) -> Candidate:
    return candidate(node, "m", **fields)


def warm_on(node: str, **fields: Any) -> Candidate:
    return candidate(node, warm("m"), **fields)


# --- who may be chosen -----------------------------------------------------------------------------------------------


def test_each_model_goes_to_the_node_that_has_it():
    one, two = candidate("a", "m"), candidate("b", "n")
    assert decide(one, two, wish=Wish(model="m")).chosen == one
    assert decide(one, two, wish=Wish(model="n")).chosen == two


def test_nobody_fit_is_no_choice_with_a_reason_each():
    decision = decide(on("a", draining=True), candidate("b", "n"))
    assert decision.chosen is None
    assert decision.ranked == ()
    assert {entry.key: entry.filter for entry in decision.rejections} == {"a/llama": "draining", "b/llama": "model"}


def test_an_empty_fleet_is_no_choice():
    assert decide() == Decision(chosen=None, rejections=(), ranked=())


def test_any_ready_worker_will_do_when_no_model_is_given():
    assert nodes(decide(candidate("a"), candidate("b", "n", draining=True), wish=Wish())) == "a"


def test_eligibility_does_not_depend_on_the_order_of_the_fleet():
    fleet = [on("c"), warm_on("b"), on("a", memory_free_mb=5), on("d", late=True)]
    one, other = eligible(WISH, fleet), eligible(WISH, fleet[::-1])
    assert [entry.key for entry in one.candidates] == ["a/llama", "b/llama", "c/llama"]
    assert (one.candidates, one.by_standing, one.warm) == (other.candidates, other.by_standing, other.warm)


# --- least loaded ----------------------------------------------------------------------------------------------------


def test_the_node_with_three_free_slots_wins_over_the_one_with_one():
    assert nodes(decide(on("a", slots=4, slots_busy=3), on("b", slots=4, slots_busy=1))) == "ba"


def test_own_requests_in_flight_count_before_the_worker_tells_of_them():
    assert nodes(decide(on("a"), on("b"), in_flight={"a/llama": 2, "b/llama": 1})) == "ba"


def test_requests_told_by_the_worker_and_by_us_are_not_added_up():
    assert free_slots(on("a", slots=4, slots_busy=3), {"a/llama": 2}) == 1
    assert free_slots(on("a", slots=4, slots_busy=1), {"a/llama": 2}) == 2


def test_among_equals_most_free_memory_wins_then_the_name():
    assert nodes(decide(on("a", memory_free_mb=10), on("b", memory_free_mb=20))) == "ba"
    assert nodes(decide(on("b"), on("a"))) == "ab"


def test_unknown_memory_comes_last_even_after_none():
    assert nodes(decide(on("a"), on("b", memory_free_mb=0), on("c", memory_free_mb=1))) == "cba"


def test_unknown_slots_count_as_one():
    assert free_slots(on("a", slots=None), {}) == 1
    assert free_slots(on("a", slots=None, slots_busy=1), {}) == 0
    assert nodes(decide(on("a", slots=None), on("b", slots=2))) == "ba"
    assert nodes(decide(on("a", slots=None), on("b", slots=2, slots_busy=2))) == "ab"


def test_a_worker_with_no_slots_is_not_taken_for_one_with_unknown_slots():
    assert nodes(decide(on("a", slots=0), on("b", slots=None))) == "ba"


def test_a_resident_model_wins_over_more_free_slots_elsewhere():
    assert nodes(decide(on("a", slots=8), warm_on("b", slots=2))) == "ba"


def test_a_full_worker_does_not_win_by_its_resident_model():
    assert nodes(decide(on("a", slots=1), warm_on("b", slots=2, slots_busy=2))) == "ab"


def test_when_all_are_full_the_shortest_queue_wins_and_a_resident_model_decides_among_equals():
    crowd = {"a/llama": 6, "b/llama": 5, "c/llama": 5}
    assert nodes(decide(warm_on("a"), on("b"), warm_on("c"), in_flight=crowd)) == "cba"


def test_residency_that_is_unknown_is_no_residency():
    unknown = candidate("a", Model(name="m", resident=None), slots=2)
    assert nodes(decide(unknown, on("b", slots=3))) == "ba"


# --- round robin and random ------------------------------------------------------------------------------------------


def test_round_robin_takes_turns_whatever_the_load():
    fleet = [on("c"), on("a", slots_busy=4), on("b")]
    taken = Counter(nodes(decide(*fleet, strategy=Strategy.ROUND_ROBIN, turn=turn))[0] for turn in range(8))
    assert taken == {"a": 3, "b": 3, "c": 2}


def test_round_robin_keeps_its_order_when_memory_changes():
    before = decide(on("a"), on("b"), on("c"), strategy=Strategy.ROUND_ROBIN, turn=1)
    after = decide(on("a"), on("b"), on("c", memory_free_mb=99), strategy=Strategy.ROUND_ROBIN, turn=1)
    assert nodes(before) == nodes(after) == "bca"


def test_random_goes_where_chance_says():
    fleet = [on("a"), on("b"), on("c"), on("d")]
    drawn = [nodes(decide(*fleet, strategy=Strategy.RANDOM, chance=chance)) for chance in (0.0, 0.3, 0.999999)]
    assert drawn == ["abcd", "bcda", "dabc"]


# --- the cheap half --------------------------------------------------------------------------------------------------


def test_a_pick_from_one_looks_at_nothing_else():
    (only,) = eligible(WISH, [on("a", slots_busy=4)]).candidates
    for strategy in Strategy:
        assert pick(eligible(WISH, [only]), {}, strategy, 7, FixedChance(0.9)) is only


def test_a_pick_is_the_best_of_the_ranked():
    fleet = [on("a"), warm_on("b", slots=2), on("c", slots=9), warm_on("d", slots=None)]
    loads: list[dict[str, int]] = [{}, {"b/llama": 2}, {"b/llama": 2, "d/llama": 1}, {"c/llama": 9, "b/llama": 9}]
    for strategy in Strategy:
        for turn, load in enumerate(loads):
            chosen = pick(eligible(WISH, fleet), load, strategy, turn, FixedChance(0.6))
            assert chosen == decide(*fleet, in_flight=load, strategy=strategy, turn=turn, chance=0.6).chosen
