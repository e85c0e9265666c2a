from random import Random
from typing import Any

import pytest

from muster.errors import StoreUnavailable
from muster.sim.faults import CALM, Faults
from muster.sim.network import Network
from muster.sim.timeline import Timeline

HOUR_MS = 3_600_000


class Caller:
    """Calls once and notes what comes of it."""

    def __init__(self, faults: Faults, seed: int = 1, *, cut: bool = False, plane: Any = "plane") -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(seed), faults)
        self.network.planes = [plane] if plane else []
        if cut:
            self.network.cut.add("node-1")
        self.served = 0
        self.ends: list[str] = []

    def call(self, error: Exception | None = None) -> list[str]:
        def serve(_: object) -> int:
            self.served += 1
            if error:
                raise error
            return self.served

        self.network.call("node-1", serve, lambda _: self.ends.append("answered"), lambda: self.ends.append("failed"))
        self.timeline.run(self.timeline.now_ms() + HOUR_MS)
        return self.ends


def test_in_calm_a_call_is_served_once_and_answered() -> None:
    caller = Caller(CALM)
    assert caller.call() == ["answered"]
    assert caller.served == 1


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_caller_learns_of_one_end(seed: int) -> None:
    caller = Caller(Faults(lost=0.3, doubled=0.5, straggling=0.3), seed)
    assert len(caller.call()) == 1
    assert caller.served <= 2
    assert caller.served >= (caller.ends == ["answered"])


def test_nobody_hears_a_node_that_is_cut_off() -> None:
    caller = Caller(Faults(doubled=1), cut=True)
    assert caller.call() == ["failed"]
    assert caller.served == 0


def test_without_a_control_plane_every_call_fails() -> None:
    caller = Caller(Faults(doubled=1), plane=None)
    assert caller.call() == ["failed"]
    assert caller.served == 0


def test_an_error_of_the_control_plane_is_a_failed_call() -> None:
    assert Caller(Faults(doubled=1)).call(StoreUnavailable("away")) == ["failed"]


def test_a_peace_ends_losses() -> None:
    caller = Caller(Faults(lost=1))
    assert caller.call() == ["failed"]
    caller.network.calm()
    assert caller.call() == ["failed", "answered"]
