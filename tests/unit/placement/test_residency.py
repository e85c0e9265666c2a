"""Where a model is loaded, and what makes room for it."""

from typing import Any

import pytest

from muster.placement.residency import Plan, Resident, Room, idle, plans


def resident(model: str, used_ms: int = 0, memory_mb: int | None = 4000, **fields: Any) -> Resident:
    return Resident(service="ollama", model=model, memory_mb=memory_mb, used_ms=used_ms, **fields)


def room(key: str = "a/ollama", *residents: Resident, **fields: Any) -> Room:
    return Room(key=key, residents=residents, **({"needs_mb": 4000, "free_mb": 0} | fields))


def only(*rooms: Room) -> Plan:
    found = plans(rooms)
    assert len(found.ways) == 1, found
    return found.ways[0]


def unloaded(*rooms: Room) -> list[str]:
    return [each.model for each in only(*rooms).unload]


def refusal(*rooms: Room) -> str:
    found = plans(rooms)
    assert found.ways == ()
    return "; ".join(found.refusals)


def test_where_there_is_room_nothing_has_to_go():
    assert only(room("a/ollama", resident("old"), free_mb=4000)) == Plan(key="a/ollama")


def test_the_longest_unused_makes_room():
    assert unloaded(room("a/ollama", resident("new", 2), resident("old", 1))) == ["old"]


def test_as_many_go_as_are_needed_and_no_more():
    residents = [resident("a", 1, 1000), resident("b", 2, 3000), resident("c", 3, 9000)]
    assert unloaded(room("n/o", *residents)) == ["a", "b"]


def test_what_went_in_vain_stays_after_all():
    small, large = resident("small", 1, 500), resident("large", 2, 4000)
    assert unloaded(room("n/o", small, large)) == ["large"]


def test_what_is_pinned_or_at_work_stays_and_is_named():
    pinned, busy = resident("p", pinned=True), resident("w", busy=True)
    assert refusal(room("n/o", pinned, busy)) == "n/o needs 3.9 GB of memory, 0 MB free: p is pinned, w is at work"


def test_of_many_that_stay_a_few_are_named():
    pinned = [resident(name, pinned=True) for name in "abcde"]
    assert refusal(room("n/o", *pinned)).endswith(": a is pinned, b is pinned, c is pinned and 2 more")


def test_what_would_not_be_enough_is_told():
    text = refusal(room("n/o", resident("a", memory_mb=1500), needs_mb=4000, free_mb=500))
    assert text == "n/o needs 3.9 GB of memory, 500 MB free and 1.5 GB that could be"


def test_a_model_of_unknown_size_frees_nothing_that_can_be_counted_on():
    assert refusal(room("n/o", resident("a", memory_mb=None), free_mb=100)) == (
        "n/o needs 3.9 GB of memory, 100 MB free"
    )


@pytest.mark.parametrize("unknown", [{"needs_mb": None}, {"free_mb": None}])
def test_what_nobody_knows_is_not_held_against_a_place(unknown: dict[str, Any]):
    assert only(room("a/ollama", resident("old"), **unknown)).unload == ()


def test_there_may_be_a_bound_on_how_many_are_resident():
    two = room("n/o", resident("new", 2), resident("old", 1), free_mb=99_000, resident_max=2)
    assert unloaded(two) == ["old"]
    full = room("n/o", resident("p", pinned=True), free_mb=99_000, resident_max=1)
    assert refusal(full) == "n/o keeps at most 1 in memory: p is pinned"
    assert only(room("n/o", resident("p"), free_mb=99_000, resident_max=2)).unload == ()


def test_what_goes_is_named_as_the_command_to_load_takes_it():
    plan = only(room("n/o", resident("new", 2), resident("old", 1), free_mb=99_000, resident_max=2))
    assert plan.unloaded == [f"{plan.unload[0].service}/old"]


def test_free_room_comes_before_the_unknown_and_that_before_what_others_have_to_leave():
    crowded = room("a/o", resident("x"))
    unknown = room("b/o", free_mb=None)
    free, freer = room("d/o", free_mb=5000), room("c/o", free_mb=9000)
    assert [plan.key for plan in plans([crowded, unknown, free, freer]).ways] == ["c/o", "d/o", "b/o", "a/o"]


def test_of_two_crowded_places_that_whose_models_rest_longer_is_cheaper():
    assert [plan.key for plan in plans([room("a/o", resident("x", 9)), room("b/o", resident("y", 3))]).ways] == [
        "b/o",
        "a/o",
    ]


def test_a_place_that_takes_nothing_says_why():
    found = plans([room("a/o", against="is draining"), room("b/o", free_mb=5000)])
    assert found.refusals == ("a/o is draining",)
    assert [plan.key for plan in found.ways] == ["b/o"]


def test_idle_is_what_nobody_used_for_as_long_as_it_may():
    old, young, pinned, busy = (
        resident("old", 1000),
        resident("young", 9000),
        resident("pinned", 0, pinned=True),
        resident("busy", 0, busy=True),
    )
    asked = [(old, 5.0), (young, 5.0), (pinned, 5.0), (busy, 5.0), (resident("stays", 0), None)]
    assert [each.model for each in idle(asked, now_ms=10_000)] == ["old"]
