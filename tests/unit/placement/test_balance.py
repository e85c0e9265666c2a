import random
from collections import Counter
from typing import Any

from muster.placement.balance import Outlook, by_cost, cheapest, cost, home, is_full, seat_of
from muster.placement.candidate import Candidate
from muster.placement.choose import Eligibility, choose, eligible, pick, with_room
from muster.placement.scores import Strategy
from muster.placement.wish import Wish
from tests.chance import FixedChance
from tests.unit.placement.makers import candidate, warm

WISH = Wish(model="m")
CONVERSATIONS = [random.Random(number).getrandbits(56) for number in range(400)]


def on(node: str, **fields: Any) -> Candidate:
    return candidate(node, "m", **fields)


def among(*candidates: Candidate, outlook: Outlook | None = None) -> Eligibility:
    return eligible(WISH, candidates, outlook or Outlook())


def chosen(found: Eligibility, **in_flight: int) -> str:
    return cheapest(found.seats, found.warm, loads(**in_flight)).node_id


def loads(**in_flight: int) -> dict[str, int]:
    return {f"{node}/llama": count for node, count in in_flight.items()}


def test_the_emptier_for_its_slots_is_the_cheaper():
    found = among(on("a", slots=8), on("b", slots=2))
    assert chosen(found, a=3, b=1) == "a"
    assert chosen(found, a=5, b=1) == "b"


def test_an_engines_own_line_counts_like_what_it_works_on():
    assert chosen(among(on("a", slots_busy=1, requests_waiting=2), on("b", slots_busy=2))) == "b"


def test_what_is_known_of_others_stands_for_the_engines_word():
    outlook = Outlook(outside={"a/llama": 0, "b/llama": 1})
    assert chosen(among(on("a", slots_busy=4), on("b", slots_busy=0), outlook=outlook)) == "a"


def test_the_faster_node_is_filled_first():
    outlook = Outlook(slowness={"a/llama": 1.4, "b/llama": 0.6})
    found = among(on("a"), on("b"), outlook=outlook)
    assert [chosen(found, b=busy) for busy in range(5)] == ["b"] * 4 + ["a"]


def test_who_has_the_model_in_memory_goes_first_while_a_slot_is_free():
    found = among(candidate("a", warm("m")), on("b", memory_free_mb=9))
    assert [chosen(found, a=busy) for busy in range(5)] == ["a"] * 4 + ["b"]


def test_all_in_memory_or_none_makes_no_difference():
    assert chosen(among(candidate("a", warm("m")), candidate("b", warm("m"))), a=1) == "b"


def test_a_full_one_is_chosen_only_when_all_are():
    found = among(on("a", slots=1), on("b", slots=None), outlook=Outlook(slowness={"b/llama": 4.0}))
    assert chosen(found, a=1, b=3) == "b"
    both = among(on("a", slots=1), on("b", slots=1), outlook=Outlook(slowness={"b/llama": 4.0}))
    assert chosen(both, a=1, b=1) == "a"


def test_a_slot_is_taken_by_our_own_requests_alone():
    assert is_full(on("a", slots=2), loads(a=2))
    assert not is_full(on("a", slots=2, slots_busy=2), loads(a=1))
    assert not is_full(on("a", slots=None), loads(a=99))


def test_somebody_with_room_is_found_when_there_is_one():
    found = among(on("a", slots=1), on("b", slots=1))
    room = with_room(found, loads(a=1))
    assert room is not None
    assert room.node_id == "b"
    assert with_room(found, loads(a=1, b=1)) is None


def test_the_ranking_is_the_order_in_which_they_would_be_chosen():
    found = among(candidate("a", warm("m"), slots=1), on("b"), on("c", slots=1), on("d", slots_busy=4))
    in_flight = loads(c=1)
    assert "".join(seat.candidate.node_id for seat in by_cost(found.seats, found.warm, in_flight)) == "abdc"
    decision = choose(WISH, [on("a"), on("b")], loads(a=1), Strategy.BALANCED, 0, FixedChance())
    assert decision.ranked == ("b/llama", "a/llama")
    assert pick(among(on("a"), on("b")), loads(a=1), Strategy.BALANCED, 0, FixedChance()).node_id == "b"


def test_what_it_costs_grows_with_what_is_in_flight():
    seat = seat_of(on("a", slots=4), Outlook(outside={"a/llama": 2}, slowness={"a/llama": 2.0}))
    assert [cost(seat, loads(a=mine)) for mine in (0, 2)] == [3.0, 4.0]


# --- conversations ---------------------------------------------------------------------------------------------------


def at_home(found: Eligibility, conversation: int, **in_flight: int) -> str | None:
    one = home(found.seats, found.warm, loads(**in_flight), conversation)
    return None if one is None else one.node_id


def test_a_conversation_has_the_same_home_each_time_and_conversations_spread():
    found = among(*map(on, "abcd"))
    assert {at_home(found, 7) for _ in range(5)} == {at_home(found, 7)}
    homes = Counter(at_home(found, conversation) for conversation in CONVERSATIONS)
    assert len(homes) == 4
    assert min(homes.values()) > 60


def test_another_worker_takes_none_but_its_own_share_of_the_conversations():
    before, after = among(*map(on, "abcd")), among(*map(on, "abcde"))
    moved = {at_home(after, one) for one in CONVERSATIONS if at_home(before, one) != at_home(after, one)}
    assert moved == {"e"}


def test_a_home_that_is_loaded_beyond_the_others_is_left_for_the_next():
    found = among(*map(on, "abcd"))
    first = at_home(found, 7)
    second = at_home(found, 7, **{str(first): 3})
    assert second not in (first, None)
    assert at_home(found, 7, a=3, b=3, c=3, d=3) == first


def test_a_home_has_the_model_in_memory_and_there_is_none_when_those_are_full():
    found = among(candidate("a", warm("m"), slots=1), on("b", slots=4), on("c", slots=4))
    assert {at_home(found, conversation) for conversation in CONVERSATIONS} == {"a"}
    assert at_home(found, 1, a=1) is None
