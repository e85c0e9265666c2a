"""A circuit breaker's rules, step by step."""

import pytest

from muster.gateway.limits import GatewayLimits
from muster.gateway.trust.quarantine import Change, Gravity, Now, Probe, Quarantine, Standing

LIMITS = GatewayLimits(quarantine_s=2.0, quarantine_max_s=10.0)
KEY = ("a/llama", "m")
OTHER_MODEL = ("a/llama", "n")


class Ward:
    """A quarantine with a clock, and requests that take no time."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.quarantine = Quarantine(LIMITS, self.changes.append)
        self.now_s = 100.0

    @property
    def now(self) -> Now:
        return Now(self.now_s, int(self.now_s * 1000))

    def fail(self, *gravities: Gravity, key: tuple[str, str] = KEY, whole: bool = False, reason: str = "lost") -> None:
        for gravity in gravities:
            self.quarantine.began(key)
            self.quarantine.failed(key, gravity, reason, whole=whole, began_s=self.now_s, now=self.now)

    def succeed(self, times: int = 1, key: tuple[str, str] = KEY) -> None:
        for _ in range(times):
            self.quarantine.began(key)
            self.quarantine.succeeded(key, self.now_s)

    def probe(self, problem: str | None = None) -> Probe:
        (probe,) = self.quarantine.due(self.now_s)
        self.quarantine.probed(probe, problem, self.now)
        return probe

    @property
    def out(self) -> bool:
        return "a/llama" in self.quarantine.avoided("m")

    def put_out(self) -> None:
        self.fail(Gravity.FAILED, Gravity.FAILED, Gravity.FAILED)
        assert self.out


@pytest.fixture
def ward() -> Ward:
    return Ward()


@pytest.mark.parametrize(
    "bad",
    [
        [Gravity.FAILED] * 3,
        [Gravity.SILENT] * 2,
        [Gravity.SILENT, Gravity.FAILED],
        [Gravity.LIGHT] * 5,
        [Gravity.LIGHT, Gravity.LIGHT, Gravity.FAILED, Gravity.LIGHT, Gravity.LIGHT],
    ],
)
def test_a_worker_is_put_out_by_its_last_failure_and_not_before(ward: Ward, bad: list[Gravity]):
    *before, last = bad
    ward.fail(*before)
    assert ward.changes == []
    ward.fail(last)
    assert ward.out
    assert ward.quarantine.avoided("other") == frozenset(), "for this model only"
    assert ward.changes == [Change(worker="a/llama", model="m", reason="lost", for_s=2.0)]


def test_failures_far_apart_do_not_count_together(ward: Ward):
    for _ in range(20):
        ward.fail(Gravity.FAILED)
        ward.succeed(15)
    assert not ward.out


def test_light_failures_count_only_in_a_row(ward: Ward):
    for _ in range(20):
        ward.fail(*[Gravity.LIGHT] * 4)
        ward.succeed()
    assert not ward.out


def test_a_worker_that_fails_every_other_time_is_put_out(ward: Ward):
    for _ in range(3):
        ward.succeed()
        ward.fail(Gravity.FAILED)
    assert ward.out


def test_without_a_connection_all_of_its_models_are_out(ward: Ward):
    ward.fail(*[Gravity.SILENT] * 2, whole=True, reason="connect_timeout")
    assert ward.quarantine.avoided("m") == ward.quarantine.avoided("anything") == {"a/llama"}
    (shown,) = ward.quarantine.view(ward.now_s)
    assert (shown.model, shown.reason, shown.standing, shown.retry_in_s) == (None, "connect_timeout", "out", 2.0)
    assert ward.quarantine.reasons(None) == {"a/llama": "connect_timeout"}


def test_it_is_probed_when_its_time_is_over_and_once_at_a_time(ward: Ward):
    ward.put_out()
    ward.now_s += 1.9
    assert list(ward.quarantine.due(ward.now_s)) == []
    ward.now_s += 0.1
    assert list(ward.quarantine.due(ward.now_s)) == [Probe(key=KEY, worker="a/llama", model="m")]
    assert list(ward.quarantine.due(ward.now_s)) == []
    assert ward.out, "while it is being probed"


def test_every_bad_probe_doubles_the_wait_up_to_a_bound(ward: Ward):
    ward.put_out()
    waits = []
    for _ in range(4):
        ward.now_s += 100
        ward.probe("still bad")
        waits.append(ward.quarantine.view(ward.now_s)[0].retry_in_s)
    assert waits == [4.0, 8.0, 10.0, 10.0]
    assert ward.quarantine.view(ward.now_s)[0].times == 5
    assert ward.quarantine.reasons("m") == {"a/llama": "still bad"}


def test_it_comes_back_by_one_two_four_eight_at_a_time(ward: Ward):
    ward.put_out()
    ward.now_s += 2
    ward.probe()
    at_once = []
    while ward.quarantine.view(ward.now_s):
        running = 0
        while not ward.out:
            ward.quarantine.began(KEY)
            running += 1
        at_once.append(running)
        ward.quarantine.succeeded(KEY, ward.now_s)
        for _ in range(running - 1):
            ward.quarantine.let_go(KEY, ward.now_s)
    assert at_once == [1, 2, 4, 8]
    assert ward.changes[-1] == Change(worker="a/llama", model="m", reason=None)
    assert not ward.out


def test_one_failure_on_the_way_back_puts_it_out_for_longer(ward: Ward):
    ward.put_out()
    ward.now_s += 2
    ward.probe()
    ward.succeed()
    ward.fail(Gravity.LIGHT, reason="status_500")
    assert ward.out
    (shown,) = ward.quarantine.view(ward.now_s)
    assert (shown.standing, shown.retry_in_s, shown.reason) == (Standing.OUT, 4.0, "status_500")


def test_what_was_begun_before_it_was_put_out_says_nothing_any_more(ward: Ward):
    ward.put_out()
    before_s = ward.now_s
    ward.quarantine.failed(KEY, Gravity.SILENT, "late", whole=False, began_s=before_s, now=ward.now)
    ward.quarantine.succeeded(KEY, before_s)
    ward.now_s += 2
    ward.probe()
    ward.quarantine.failed(KEY, Gravity.SILENT, "late", whole=False, began_s=before_s, now=ward.now)
    ward.quarantine.let_go(KEY, before_s)
    (shown,) = ward.quarantine.view(ward.now_s)
    assert (shown.standing, shown.allowed, shown.times) == (Standing.RETURNING, 1, 1)


def test_another_model_of_the_worker_does_not_help_or_hurt_the_one_that_is_out(ward: Ward):
    ward.put_out()
    ward.now_s += 2
    ward.probe()
    ward.succeed(10, key=OTHER_MODEL)
    ward.fail(Gravity.FAILED, key=OTHER_MODEL)
    assert ward.quarantine.view(ward.now_s)[0].allowed == 1


def test_a_worker_that_left_the_fleet_is_forgotten(ward: Ward):
    ward.put_out()
    ward.now_s += 2
    (probe,) = ward.quarantine.due(ward.now_s)
    ward.quarantine.gone(probe)
    assert ward.quarantine.view(ward.now_s) == []
    ward.quarantine.gone(probe)
    ward.quarantine.probed(probe, None, ward.now)
    assert len(ward.changes) == 2


def test_what_is_remembered_of_failures_is_bounded(ward: Ward):
    ward.fail(Gravity.FAILED, Gravity.FAILED)
    for number in range(4096):
        ward.fail(Gravity.FAILED, key=(f"n{number}/llama", "m"))
    ward.fail(Gravity.FAILED)
    assert not ward.out


def test_changes_are_told_as_facts():
    out = Change(worker="a/llama", model="m", reason="lost", for_s=2.0).event(5)
    assert (out.kind, out.key, out.at_ms) == ("worker_quarantined", "a/llama", 5)
    assert out.data == {"model": "m", "reason": "lost", "for_s": 2.0}
    back = Change(worker="a/llama", model=None, reason=None).event(6)
    assert (back.kind, back.data) == ("worker_trusted_again", {})
