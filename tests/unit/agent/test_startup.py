"""Coming up: steps told as they are, an end where a required one fails, and services told in order."""

from typing import Any

import pytest

from muster.agent.startup import InOrder, StartupFailed, Step, run_steps
from muster.domain.node import Phase
from muster.errors import UpstreamFailed
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def add(self, kind: str, **data: Any) -> None:
        self.events.append((kind, data))

    @property
    def short(self) -> list[tuple[str, str]]:
        return [(kind, data.get("step") or data["service"]) for kind, data in self.events]


async def fine() -> dict[str, Any]:
    await time_passes(1.5)
    return {"count": 2}


async def broken() -> dict[str, Any]:
    raise UpstreamFailed("no room")


async def odd() -> dict[str, Any]:
    raise ValueError("odd")


@in_virtual_time
async def test_steps_are_told_with_their_facts_and_how_long_they_took() -> None:
    told, phases = Told(), list[Phase]()
    steps = [Step(name="a", run=fine), Step(name="b", run=fine, phase=Phase.CONFIGURING, told=False)]
    assert await run_steps(steps, told, LoopClock(), phases.append) == {}
    assert phases == [Phase.STARTING, Phase.CONFIGURING]
    assert told.events == [("startup_step", {"step": "a"}), ("step_done", {"step": "a", "took_ms": 1500, "count": 2})]


@in_virtual_time
async def test_a_step_that_fails_is_told_and_the_others_go_on() -> None:
    told = Told()
    steps = [Step(name="a", run=broken), Step(name="b", run=odd), Step(name="c", run=fine)]
    assert await run_steps(steps, told, LoopClock(), lambda _: None) == {"a": "no room", "b": "odd"}
    assert told.short == [
        ("startup_step", "a"), ("step_failed", "a"), ("startup_step", "b"), ("step_failed", "b"),
        ("startup_step", "c"), ("step_done", "c"),
    ]  # fmt: skip


@in_virtual_time
async def test_a_required_step_that_fails_is_the_end() -> None:
    told = Told()
    steps = [Step(name="a", run=broken, required=True), Step(name="b", run=fine)]
    with pytest.raises(StartupFailed, match="no room") as raised:
        await run_steps(steps, told, LoopClock(), lambda _: None)
    assert raised.value.step == "a"
    assert told.short == [("startup_step", "a"), ("step_failed", "a")]


def test_services_that_start_side_by_side_are_told_in_their_order() -> None:
    told = Told()
    in_order = InOrder(told, ["gpu0", "gpu1", "gpu2"])
    in_order.add("service_started", service="gpu2")
    in_order.add("service_restarting", service="gpu0")  # news of other kinds are told as they come
    in_order.add("service_started", service="gpu1")
    assert told.short == [("service_restarting", "gpu0")]
    in_order.add("service_failed", service="gpu0")
    assert told.short[1:] == [("service_failed", "gpu0"), ("service_started", "gpu1"), ("service_started", "gpu2")]
    in_order.add("service_started", service="gpu0")  # later, by a command
    in_order.add("service_started", service="other")
    assert told.short[4:] == [("service_started", "gpu0"), ("service_started", "other")]
