"""Deadlines that are learned, on made-up courses of answers."""

import random

import pytest

from muster.gateway.limits import GatewayLimits
from muster.gateway.trust.patience import Patience, Spread

LIMITS = GatewayLimits(
    first_byte_timeout_s=300.0,
    idle_timeout_s=120.0,
    first_byte_floor_s=1.0,
    idle_floor_s=0.5,
    patience_factor=4.0,
    patience_samples_min=8,
)
KEY = ("a/llama", "m")


@pytest.fixture
def patience() -> Patience:
    return Patience(LIMITS)


def learn(patience: Patience, *after_s: float, size: int = 100, silence_s: float | None = None) -> None:
    for each_s in after_s:
        patience.began(KEY, size, each_s)
        patience.answered(KEY, silence_s)


def test_a_quantile_is_never_below_the_truth_and_at_most_a_fifth_above():
    rng = random.Random(5)
    for _ in range(50):
        seen = [rng.lognormvariate(0, 1.5) for _ in range(rng.randrange(1, 400))]
        spread = Spread()
        for duration_s in seen:
            spread.add(duration_s)
        truth = sorted(seen)[max(0, -(-99 * len(seen) // 100) - 1)]
        assert truth * 0.999 <= spread.quantile(0.99) <= truth * 1.2


def test_what_is_old_fades():
    spread = Spread()
    for _ in range(500):
        spread.add(10.0)
    assert spread.quantile(0.99) == pytest.approx(10, rel=0.2)
    for _ in range(5000):
        spread.add(0.1)
    assert spread.quantile(0.99) < 0.13
    assert spread.samples <= 513


def test_durations_of_nothing_are_the_shortest_there_is():
    spread = Spread()
    spread.add(0.0)
    assert spread.quantile(0.99) == 0.001


def test_who_is_not_known_well_gets_the_settings(patience: Patience):
    assert (patience.first_byte_s(KEY, 100), patience.silence_s(KEY)) == (300.0, 120.0)
    learn(patience, *[0.5] * 7, silence_s=0.2)
    assert (patience.first_byte_s(KEY, 100), patience.silence_s(KEY)) == (300.0, 120.0)
    assert patience.view()[0].learned is False


def test_who_is_known_is_waited_for_some_times_as_long_as_usual(patience: Patience):
    learn(patience, *[0.5] * 8, silence_s=0.2)
    assert 2.0 <= patience.first_byte_s(KEY, 100) <= 2.4
    assert 0.8 <= patience.silence_s(KEY) <= 1.0
    (shown,) = patience.view()
    assert (shown.worker, shown.model, shown.answers, shown.learned) == ("a/llama", "m", 8, True)
    assert patience.first_byte_s(("b/llama", "m"), 100) == 300.0, "each worker is known by itself"


def test_a_learned_wait_stays_within_its_floor_and_the_setting(patience: Patience):
    learn(patience, *[0.001] * 20, silence_s=0.001)
    assert (patience.first_byte_s(KEY, 100), patience.silence_s(KEY)) == (1.0, 0.5)
    learn(patience, *[200.0] * 20, silence_s=100.0)
    assert (patience.first_byte_s(KEY, 100), patience.silence_s(KEY)) == (300.0, 120.0)


def test_a_floor_above_the_setting_does_not_lift_it():
    patience = Patience(GatewayLimits(first_byte_timeout_s=0.1, patience_samples_min=1))
    learn(patience, 0.01)
    assert patience.first_byte_s(KEY, 100) == 0.1


def test_one_long_answer_among_hundreds_does_not_make_all_wait(patience: Patience):
    learn(patience, *[0.5] * 300, 60.0)
    assert patience.first_byte_s(KEY, 100) < 3


def test_longer_prompts_are_known_by_themselves_or_scaled_up_from_shorter_ones(patience: Patience):
    learn(patience, *[0.5] * 8, size=1000)
    short_s = patience.first_byte_s(KEY, 1000)
    assert patience.first_byte_s(KEY, 4000) == pytest.approx(4 * short_s)
    assert patience.first_byte_s(KEY, 16_000) == pytest.approx(16 * short_s)
    learn(patience, *[1.0] * 8, size=16_000)
    assert patience.first_byte_s(KEY, 16_000) == pytest.approx(2 * short_s)
    assert patience.first_byte_s(KEY, 4000) == patience.first_byte_s(KEY, 16_000), "at most what longer ones take"
    assert patience.first_byte_s(KEY, 1000) == short_s


def test_waits_given_up_double_the_next_until_an_answer_comes(patience: Patience):
    learn(patience, *[0.5] * 8, silence_s=0.2)
    usual_s = patience.first_byte_s(KEY, 100)
    for times in (2, 4, 8):
        patience.gave_up(KEY)
        assert patience.first_byte_s(KEY, 100) == pytest.approx(times * usual_s)
    for _ in range(50):
        patience.gave_up(KEY)
    assert patience.first_byte_s(KEY, 100) == 300.0
    patience.answered(KEY, None)
    assert patience.first_byte_s(KEY, 100) == usual_s


def test_a_worker_that_became_slow_is_learned_anew(patience: Patience):
    learn(patience, *[0.1] * 200)
    now_s, given_up = 30.0, 0
    for _ in range(100):  # each answer would take 30 s now
        if patience.first_byte_s(KEY, 100) < now_s:
            patience.gave_up(KEY)
            given_up += 1
        else:
            learn(patience, now_s)
    assert given_up <= 16
    assert patience.first_byte_s(KEY, 100) > now_s


def test_without_a_factor_only_the_settings_count():
    patience = Patience(GatewayLimits(patience_factor=0.0))
    learn(patience, *[0.5] * 20, silence_s=0.1)
    assert (patience.first_byte_s(KEY, 100), patience.silence_s(KEY)) == (300.0, 120.0)


def test_workers_not_heard_of_for_long_are_forgotten(patience: Patience):
    learn(patience, *[0.5] * 8)
    for number in range(4095):
        patience.answered((f"n{number}/llama", "m"), None)
    learn(patience, 0.5)
    for number in range(4095, 8000):
        patience.answered((f"n{number}/llama", "m"), None)
    assert patience.first_byte_s(KEY, 100) < 300.0, "used again in between"
    for number in range(8000, 9000):
        patience.answered((f"n{number}/llama", "m"), None)
    assert patience.first_byte_s(KEY, 100) == 300.0
    assert len(patience.view()) == 100
