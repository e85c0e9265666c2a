"""What is made of an attempt, by its course."""

import pytest
from msgspec.structs import replace

from muster.domain.service import Dialect
from muster.gateway.dialects.call import Call
from muster.gateway.limits import GatewayLimits
from muster.gateway.trust.conduct import Conduct, Watch
from muster.gateway.trust.quarantine import Change
from muster.placement.candidate import Candidate
from tests.clocks import ManualClock
from tests.integration.gateway.fleet import CHAT, worker

LIMITS = GatewayLimits(
    first_byte_timeout_s=60.0, idle_timeout_s=30.0, first_byte_floor_s=0.1, idle_floor_s=0.1, patience_samples_min=2
)
WORKER = worker("http://a", "a", slots=1)
KEY = ("a/llama", "smollm2-135m")
CALL = Call(dialect=Dialect.OPENAI, path="/v1/chat/completions", model=KEY[1], stream=True, body=b"{}")


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.changes: list[Change] = []
        self.conduct = Conduct(LIMITS, self.clock, self.changes.append)

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def watch(self, call: Call = CALL, candidate: Candidate = WORKER, in_flight: int = 1) -> Watch:
        return self.conduct.watch(candidate, call, self.now_s, in_flight)

    def answer(self, *gaps_s: float, call: Call = CALL, candidate: Candidate = WORKER, status: int = 200) -> None:
        watch = self.watch(call, candidate)
        for gap_s in gaps_s:
            self.clock.advance(gap_s)
            watch.heard(self.now_s)
        watch.ended(status)

    @property
    def waits(self) -> tuple[float, float]:
        patience = self.conduct.patience
        return patience.first_byte_s(KEY, 2), patience.silence_s(KEY)


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_byte_and_the_longest_silence_are_learned(world: World):
    for _ in range(2):
        world.answer(0.5, 0.1, 0.2, 0.1)
    first_s, silence_s = world.waits
    assert 2.0 <= first_s <= 2.4
    assert 0.8 <= silence_s <= 1.0


@pytest.mark.parametrize(
    ("call", "candidate"),
    [
        (replace(CALL, stream=False), WORKER),
        (CALL, worker("http://a", "a", replace(CHAT, resident=False))),
    ],
    ids=["whole answers", "model not loaded"],
)
def test_what_is_not_like_other_answers_is_not_learned_from(world: World, call: Call, candidate: Candidate):
    for _ in range(4):
        world.answer(0.5, call=call, candidate=candidate)
    assert world.waits == (60.0, 30.0)
    for _ in range(4):
        world.answer(0.5)
    assert world.watch(call, candidate).first_byte_s == 60.0


def test_embeddings_are_learned_from_though_they_do_not_stream(world: World):
    for _ in range(2):
        world.answer(0.5, call=replace(CALL, stream=False, capability="embedding"))
    assert world.waits[0] < 2.5


def test_a_silence_that_was_the_callers_does_not_count(world: World):
    for _ in range(2):
        watch = world.watch()
        watch.excuse(world.now_s)
        watch.heard(world.now_s)
        world.clock.advance(20)
        watch.excuse(world.now_s)
        world.clock.advance(0.1)
        watch.heard(world.now_s)
        watch.ended(200)
    assert world.waits[1] <= 0.5


def test_one_that_waits_behind_others_is_not_late_while_they_are_served(world: World):
    for _ in range(2):
        world.answer(0.5)
    started_s = world.now_s
    other, waiting = world.watch(in_flight=1), world.watch(in_flight=2)
    for _ in range(50):
        world.clock.advance(1.0)
        other.alive(world.now_s)
        assert not waiting.is_late(world.now_s, started_s)
    world.clock.advance(3.0)
    assert waiting.is_late(world.now_s, started_s), "nobody has heard of it"
    world.clock.advance(8.0)
    other.alive(world.now_s)
    assert waiting.is_late(world.now_s, started_s), "the setting stands"


def test_one_that_has_its_slot_is_late_whatever_others_get(world: World):
    for _ in range(2):
        world.answer(0.5)
    started_s = world.now_s
    watch = world.watch(in_flight=1)
    world.clock.advance(3.0)
    watch.alive(world.now_s)
    assert watch.is_late(world.now_s, started_s)


def test_only_the_first_outcome_counts(world: World):
    for _ in range(4):
        watch = world.watch()
        watch.ended(200)
        watch.failed("lost")
        watch.ended(500)
        watch.let_go()
    assert world.changes == []


@pytest.mark.parametrize(
    ("reason", "times"),
    [
        ("lost", 3),
        ("status_503", 3),
        ("first_byte_timeout", 2),
        ("idle_timeout", 2),
        ("connect_timeout", 2),
        ("status_500", 5),
        ("status_429", None),
    ],
)
def test_how_many_failures_of_a_kind_put_a_worker_out(world: World, reason: str, times: int | None):
    for _ in range(times or 20):
        assert world.changes == []
        world.watch().failed(reason)
    assert len(world.changes) == (0 if times is None else 1)
    if times is not None:
        assert world.conduct.avoided(KEY[1]) == {"a/llama"}
        assert (world.changes[0].model is None) is reason.startswith("connect")


def test_an_engines_own_errors_told_whole_count_when_there_is_nothing_else(world: World):
    for _ in range(5):
        world.answer(0.1, status=500)
    assert [change.reason for change in world.changes] == ["status_500"]


def test_silence_doubles_the_next_wait(world: World):
    for _ in range(2):
        world.answer(0.5)
    first_s, _ = world.waits
    world.watch().failed("first_byte_timeout")
    assert world.waits[0] == pytest.approx(2 * first_s)


def test_signs_of_life_are_bounded(world: World):
    for number in range(5000):
        world.conduct.heard(f"n{number}", 1.0)
    assert len(world.conduct._signs_s) <= 4096
