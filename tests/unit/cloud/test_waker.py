import asyncio

import pytest
from msgspec.structs import replace

from muster.control.machines.waker import FleetWaker
from muster.errors import ModelAsleep, NoCapacity, ShuttingDown
from tests.unit.cloud.rented import RULES, RentedFleet
from tests.waiting import eventually


def waker_of(fleet: RentedFleet, timeout_s: float = 20.0) -> FleetWaker:
    return FleetWaker(fleet.service, fleet.plane.fleet, fleet.clock, timeout_s=timeout_s)


async def test_what_no_machine_has_cannot_be_woken() -> None:
    fleet = RentedFleet()
    await fleet.at_rest("worker-0", "qwen")

    assert waker_of(fleet).wake("llama") is None
    assert list(waker_of(fleet).models()) == ["qwen"]


async def test_all_who_ask_wait_for_one_start_and_end_when_the_model_is_served() -> None:
    fleet = RentedFleet()
    machine = await fleet.at_rest("worker-0", "qwen:latest", "llama")
    waker = waker_of(fleet)
    await fleet.beat("local", "other")  # what is alive with other models does not matter

    waits = [waker.wake(model) for model in ("qwen", "qwen:latest", "llama") * 30]
    tasks = [asyncio.ensure_future(wait) for wait in waits if wait is not None]
    await eventually(fleet.started)
    assert len(tasks) == 90
    await fleet.beat(machine.machine_id)
    assert not any(task.done() for task in tasks), "registered is not served"
    await fleet.beat(machine.machine_id, "qwen", "llama")

    await asyncio.gather(*tasks)
    assert fleet.started() == [machine.machine_id]


async def test_who_gives_up_takes_the_wait_from_nobody() -> None:
    fleet = RentedFleet()
    machine = await fleet.at_rest()
    waker = waker_of(fleet)
    first, second = waker.wake("qwen"), waker.wake("qwen")
    assert first is not None
    assert second is not None
    leaving, staying = asyncio.ensure_future(first), asyncio.ensure_future(second)
    await eventually(fleet.started)

    leaving.cancel()
    await fleet.beat(machine.machine_id, "qwen")

    await staying
    assert leaving.cancelled()


async def test_a_machine_that_boots_already_is_waited_for() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    wait = waker_of(fleet).wake("qwen")
    assert wait is not None

    task = asyncio.ensure_future(wait)
    await fleet.beat(machine.machine_id, "qwen")

    await task
    assert fleet.started() == []


async def test_a_machine_that_has_run_for_long_without_serving_is_not_waited_for() -> None:
    fleet = RentedFleet()
    await fleet.machine()
    fleet.clock.advance(RULES.boot_s + 1)

    assert waker_of(fleet).wake("qwen") is None


async def test_the_next_machine_is_tried_when_one_cannot_be_had() -> None:
    fleet = RentedFleet()
    await fleet.at_rest("worker-0", machine_type="dear")
    second = await fleet.at_rest("worker-1")

    wait = waker_of(fleet).wake("qwen")
    assert wait is not None
    task = asyncio.ensure_future(wait)
    await eventually(lambda: fleet.started() == [second.machine_id])
    await fleet.beat(second.machine_id, "qwen")
    await task


async def test_when_none_can_be_had_all_are_told_why_and_the_cloud_is_left_alone_for_a_while() -> None:
    fleet = RentedFleet()
    await fleet.at_rest()
    fleet.cloud.problem = NoCapacity("the zone is full")
    waker = waker_of(fleet)

    for left_s in (30.0, 20.0):
        wait = waker.wake("qwen")
        assert wait is not None
        with pytest.raises(ModelAsleep, match="the zone is full") as refused:
            await wait
        assert refused.value.retry_after_s == left_s
        assert refused.value.data == {"reason": "no_capacity"}
        fleet.clock.advance(10)
    assert len(fleet.started()) == 1

    fleet.clock.advance(30)
    wait = waker.wake("qwen")
    assert wait is not None
    with pytest.raises(ModelAsleep):
        await wait
    assert len(fleet.started()) == 2


async def test_who_does_not_come_up_in_time_is_given_up() -> None:
    fleet = RentedFleet()
    await fleet.at_rest()
    wait = waker_of(fleet, timeout_s=0.05).wake("qwen")
    assert wait is not None

    with pytest.raises(ModelAsleep, match=r"within 0\.05 s"):
        await wait


async def test_a_stop_of_muster_ends_every_wait() -> None:
    fleet = RentedFleet()
    await fleet.at_rest()
    waker = waker_of(fleet)
    wait = waker.wake("qwen")
    assert wait is not None
    task = asyncio.ensure_future(wait)
    await eventually(fleet.started)

    await waker.stop()

    with pytest.raises(ShuttingDown):
        await task


async def test_a_machine_on_its_way_to_rest_is_called_back() -> None:
    fleet = RentedFleet(replace(RULES, drain_s=10_000))
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen", slots_busy=1)
    fleet.service.begin_rest(machine, "idle")
    await eventually(lambda: fleet.node(machine.machine_id).draining)

    wait = waker_of(fleet).wake("qwen")
    assert wait is not None
    await wait

    assert fleet.stopped() == []
