import pytest

from muster.placement.outside import Outside
from muster.placement.speed import Speeds
from tests.unit.placement.makers import candidate

KEYS = ("a/llama", "b/llama", "c/llama")


def test_who_gives_tokens_twice_as_fast_is_half_as_slow():
    speeds = Speeds()
    speeds.learn("a/llama", "m", 100, 1.0)
    speeds.learn("b/llama", "m", 50, 1.0)
    assert speeds.slowness(KEYS, "m") == {"a/llama": 0.75, "b/llama": 1.5}
    assert speeds.slowness(KEYS, "other") == {}


def test_one_answer_moves_what_is_known_by_a_part():
    speeds = Speeds()
    for tokens in (100, 50):
        speeds.learn("a/llama", "m", tokens, 1.0)
    assert speeds.per_s("a/llama", "m") == pytest.approx(90.0)
    assert speeds.per_s("b/llama", "m") is None


def test_short_answers_and_ones_without_time_teach_nothing():
    speeds = Speeds()
    speeds.learn("a/llama", "m", 7, 1.0)
    speeds.learn("a/llama", "m", 100, 0.0)
    assert speeds.per_s("a/llama", "m") is None


def test_nobody_is_slower_or_faster_than_can_be_believed():
    speeds = Speeds()
    for key, tokens in (("a/llama", 100_000), ("b/llama", 10), ("c/llama", 10)):
        speeds.learn(key, "m", tokens, 1.0)
    assert speeds.slowness(KEYS, "m") == {"a/llama": pytest.approx(1 / 3, abs=0.01), "b/llama": 4.0, "c/llama": 4.0}


def test_what_is_known_stays_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("muster.placement.speed._KNOWN_MAX", 2)
    speeds = Speeds()
    for key in KEYS:
        speeds.learn(key, "m", 100, 1.0)
    assert [speeds.per_s(key, "m") for key in KEYS] == [None, 100.0, 100.0]


# --- what others ask of an engine ------------------------------------------------------------------------------------


def test_what_an_engine_tells_beyond_our_own_is_that_of_others():
    outside = Outside()
    assert outside.of(candidate("a", slots_busy=3, requests_waiting=1), {}) == 4
    assert outside.of(candidate("a", slots_busy=3), {"a/llama": 2}) == 1
    assert outside.of(candidate("b", slots_busy=None), {}) == 0


def test_what_was_ours_when_the_engine_looked_is_ours_though_it_has_ended():
    outside = Outside()
    outside.of(candidate("a", slots_busy=0), {})
    for count in (1, 2, 3, 2):
        outside.sent("a/llama", count)
    assert outside.of(candidate("a", slots_busy=3), {}) == 0
    assert outside.of(candidate("a", slots_busy=4), {}) == 4  # since then we sent nothing


def test_the_same_word_is_no_news():
    outside = Outside()
    told = candidate("a", slots_busy=2)
    assert outside.of(told, {}) == 2
    assert outside.of(told, {"a/llama": 2}) == 2


def test_engines_that_are_remembered_stay_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("muster.placement.outside._KNOWN_MAX", 1)
    outside = Outside()
    assert [outside.of(candidate(node, slots_busy=1), {}) for node in "ab"] == [1, 1]
    assert list(outside._told) == ["b/llama"]
