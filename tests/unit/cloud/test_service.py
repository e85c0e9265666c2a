import asyncio

import pytest
from msgspec.structs import replace

from muster.control.machines.budget import Budget
from muster.control.machines.first_machine import FirstMachine
from muster.domain.machine import MachineState
from muster.domain.node import Health
from muster.errors import CloudFailed, Conflict, MachineNotFound, NoCapacity, OverBudget
from muster.ids import NodeId
from tests.unit.cloud.rented import RULES, RentedFleet, kinds
from tests.waiting import eventually


async def test_a_machine_that_served_nothing_for_long_is_drained_and_stopped() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")

    fleet.clock.advance(99)
    await fleet.service.look()
    assert fleet.stopped() == []
    await fleet.beat(machine.machine_id, "qwen")
    fleet.clock.advance(2)
    await fleet.service.look()

    await eventually(lambda: fleet.stopped() == [machine.machine_id])
    assert fleet.node(machine.machine_id).draining
    assert "machine_put_to_rest" in await kinds(fleet)


async def test_one_that_serves_stays() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    for _ in range(5):
        fleet.clock.advance(60)
        await fleet.beat(machine.machine_id, "qwen", slots_busy=1)
        await fleet.service.look()

    assert fleet.stopped() == []


async def test_an_answer_through_our_gateway_is_use_although_no_heartbeat_saw_it() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    fleet.clock.advance(99)
    fleet.service.worker_answered(f"{machine.machine_id}/llama")
    await fleet.service.look()
    fleet.clock.advance(99)
    fleet.busy = [f"{machine.machine_id}/llama"]
    await fleet.service.look()
    fleet.clock.advance(99)
    await fleet.service.look()

    assert fleet.stopped() == []


async def test_use_through_another_control_plane_counts() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    other = fleet.another("plane-b", lambda: [f"{machine.machine_id}/llama"], leads=False)
    await fleet.service.start()
    await eventually(lambda: fleet.plane.store.bus._subscribers)

    fleet.clock.advance(99)
    await other.look()
    await eventually(lambda: fleet.service._used_ms.get(machine.machine_id) == fleet.clock.now_ms())
    fleet.clock.advance(2)
    await fleet.service.look()
    await fleet.service.stop()

    assert fleet.stopped() == []


async def test_only_the_leader_puts_to_rest() -> None:
    fleet = RentedFleet()
    await fleet.machine()
    follower = fleet.another("plane-b", leads=False)
    fleet.clock.advance(100_000)

    await follower.look()

    assert fleet.stopped() == []


async def test_a_machine_may_have_an_idle_time_of_its_own_and_people_may_change_it() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")

    await fleet.service.set_idle_stop(machine.machine_id, 0.0)
    fleet.clock.advance(5_000)
    await fleet.service.look()
    assert fleet.stopped() == [], "0 is for ever"

    await fleet.service.set_idle_stop(machine.machine_id, 10.0)
    await fleet.service.look()
    await eventually(lambda: fleet.stopped() == [machine.machine_id])
    assert fleet.service.idle_stop_s(replace(machine, machine_id="i-other", idle_stop_s=7.0)) == 7.0


async def test_one_that_never_registered_gets_the_time_of_a_boot() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    fleet.clock.advance(299)
    await fleet.service.look()
    assert fleet.stopped() == []

    fleet.clock.advance(2)
    await fleet.service.look()

    await eventually(lambda: fleet.stopped() == [machine.machine_id])


async def test_one_that_runs_for_too_long_is_stopped_although_it_serves() -> None:
    fleet = RentedFleet(replace(RULES, idle_stop_s=0.0, drain_s=0.0))
    machine = await fleet.machine()
    fleet.clock.advance(11 * 3600)
    await fleet.beat(machine.machine_id, "qwen", slots_busy=1)

    await fleet.service.look()

    await eventually(lambda: fleet.stopped() == [machine.machine_id])


async def test_running_work_may_end_before_the_stop_but_not_for_ever() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen", slots_busy=1)

    stop = asyncio.create_task(fleet.service.stop_machine(machine.machine_id, "asked for"))
    await eventually(lambda: fleet.node(machine.machine_id).draining)
    assert fleet.stopped() == []
    fleet.clock.advance(51)

    assert (await stop).state is MachineState.STOPPED
    assert (await fleet.service.stop_machine(machine.machine_id, "again")).state is MachineState.STOPPED
    assert fleet.stopped() == [machine.machine_id]


async def test_a_rest_that_has_only_begun_is_called_back_by_who_needs_the_machine() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen", slots_busy=1)
    stop = asyncio.create_task(fleet.service.stop_machine(machine.machine_id, "asked for"))
    await eventually(lambda: fleet.node(machine.machine_id).draining)

    await fleet.service.start_machine(machine.machine_id)

    with pytest.raises(Conflict, match="called back"):
        await stop
    assert not fleet.node(machine.machine_id).draining
    assert fleet.stopped() == fleet.started() == []


async def test_however_many_ask_on_however_many_control_planes_it_is_started_once() -> None:
    fleet = RentedFleet(boot_s=60)
    machine = await fleet.machine()
    fleet.clock.advance(60)
    await fleet.service.machines.refresh()
    await fleet.cloud.stop(machine.machine_id)
    fleet.clock.advance(60)
    planes = [fleet.service, fleet.another("plane-b"), fleet.another("plane-c")]
    for plane in planes:
        await plane.machines.refresh()

    machines = await asyncio.gather(*(plane.start_machine(machine.machine_id) for plane in planes * 20))

    assert fleet.started() == [machine.machine_id]
    assert {one.state for one in machines} == {MachineState.PENDING}


async def test_one_that_is_stopping_is_started_once_it_has_stopped() -> None:
    fleet = RentedFleet(boot_s=30)
    machine = await fleet.machine()
    fleet.clock.advance(30)
    await fleet.cloud.list("lab")
    await fleet.cloud.stop(machine.machine_id)
    await fleet.service.machines.refresh()

    start = asyncio.create_task(fleet.service.start_machine(machine.machine_id))
    for _ in range(10):
        await asyncio.sleep(0)
    assert fleet.started() == []
    fleet.clock.advance(30)

    assert (await start).state is MachineState.PENDING
    assert fleet.started() == [machine.machine_id]


async def test_one_that_never_ends_stopping_is_not_waited_for_for_ever() -> None:
    fleet = RentedFleet(boot_s=10_000)
    machine = await fleet.machine()
    fleet.clock.advance(10_000)
    await fleet.cloud.list("lab")
    await fleet.cloud.stop(machine.machine_id)
    await fleet.service.machines.refresh()

    start = asyncio.create_task(fleet.service.start_machine(machine.machine_id))
    for _ in range(10):
        await asyncio.sleep(0)
    fleet.clock.advance(RULES.boot_s + 1)

    with pytest.raises(CloudFailed, match="stopping for 300 s"):
        await start


async def test_the_draining_of_its_last_run_ends_with_its_start() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    await fleet.service.stop_machine(machine.machine_id, "asked for")
    assert fleet.node(machine.machine_id).draining

    await fleet.service.start_machine(machine.machine_id)

    assert not fleet.node(machine.machine_id).draining


async def test_who_starts_it_elsewhere_ends_that_draining_too() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    await fleet.service.stop_machine(machine.machine_id, "asked for")

    await fleet.cloud.start(machine.machine_id)
    await fleet.service.look()

    assert not fleet.node(machine.machine_id).draining


async def test_a_person_who_drains_a_machine_that_runs_is_obeyed() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    book = fleet.plane.fleet.book
    fleet.plane.fleet.carry_out(book.set_draining(NodeId(machine.machine_id), fleet.clock.now_ms(), draining=True))

    await fleet.service.start_machine(machine.machine_id)

    assert fleet.node(machine.machine_id).draining


async def test_a_start_that_would_cost_too_much_is_refused_with_the_figures() -> None:
    fleet = RentedFleet()
    machine = await fleet.at_rest(machine_type="dear")

    with pytest.raises(OverBudget, match="hourly_usd_max"):
        await fleet.service.start_machine(machine.machine_id)
    assert fleet.started() == []


async def test_two_that_together_cost_too_much_are_not_both_started() -> None:
    fleet = RentedFleet(replace(RULES, budget=Budget(machines_max=1, hourly_usd_max=5.0)))
    machines = [await fleet.at_rest(f"worker-{index}") for index in range(2)]

    outcomes = await asyncio.gather(
        *(fleet.service.start_machine(machine.machine_id) for machine in machines), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Machine", "OverBudget"]
    assert len(fleet.started()) == 1


async def test_after_a_failed_start_another_control_plane_does_not_try_at_once() -> None:
    fleet = RentedFleet()
    machine = await fleet.at_rest()
    fleet.cloud.problem = NoCapacity("full")
    other = fleet.another("plane-b")
    with pytest.raises(NoCapacity):
        await fleet.service.start_machine(machine.machine_id)

    start = asyncio.create_task(other.start_machine(machine.machine_id))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(fleet.started()) == 1
    fleet.cloud.problem = None
    fleet.clock.advance(61)

    await start
    assert len(fleet.started()) == 2


async def test_what_is_gone_cannot_be_started() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.cloud.terminate(machine.machine_id)

    with pytest.raises(MachineNotFound, match="terminat"):
        await fleet.service.start_machine(machine.machine_id)


async def test_a_machine_about_to_be_taken_back_takes_no_new_work() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    await fleet.service.look()

    fleet.cloud.interrupt(machine.machine_id, "will be stopped in 2 minutes", stopped=False)
    await fleet.service.look()

    assert fleet.node(machine.machine_id).draining
    assert "machine_interrupted" in await kinds(fleet)


async def test_a_machine_that_was_taken_back_is_dead_at_once_and_says_why() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    await fleet.service.look()

    fleet.cloud.interrupt(machine.machine_id, "no spot capacity", stopped=True)
    await fleet.service.look()

    node = fleet.node(machine.machine_id)
    assert (node.health, node.connected) == (Health.DEAD, False)
    assert node.reason == "its machine is stopped: no spot capacity"
    assert "machine_stopped" in await kinds(fleet)


async def test_a_heartbeat_proves_the_cloud_wrong() -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    await fleet.beat(machine.machine_id, "qwen")
    await fleet.service.look()
    fleet.cloud.interrupt(machine.machine_id, "no spot capacity", stopped=True)
    await fleet.service.look()

    await fleet.beat(machine.machine_id, "qwen")

    assert fleet.node(machine.machine_id).health is Health.HEALTHY


async def test_a_cloud_that_cannot_be_asked_leaves_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = RentedFleet()
    machine = await fleet.machine()
    asked = 0

    async def fail(_: str) -> list[object]:
        nonlocal asked
        asked += 1
        raise CloudFailed("away")

    monkeypatch.setattr(fleet.cloud, "list", fail)
    await fleet.service.start()
    await eventually(lambda: asked >= 3)
    await fleet.service.stop()

    assert [known.machine_id for known in fleet.service.machines.all()] == [machine.machine_id]


async def test_who_has_one_machine_need_not_name_it() -> None:
    fleet = RentedFleet()
    first = FirstMachine(fleet.service)
    with pytest.raises(MachineNotFound, match="muster cloud up"):
        await first.start()
    machine = await fleet.at_rest()

    assert (await first.start())["machine_id"] == machine.machine_id
    assert (await first.set_idle_time(33.0))["idle_stop_s"] == 33.0
    assert (await first.stop())["machine_id"] == machine.machine_id
    await eventually(lambda: fleet.stopped() == [machine.machine_id])
