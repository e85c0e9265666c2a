"""Where imitations of EC2 are not faithful, the twin is: one machine for a token, full zones, slow boots, spot."""

import pytest
from msgspec.structs import replace

from muster.cloud.memory import MemoryCloud
from muster.domain.machine import MachineState
from muster.errors import Conflict, InvalidInput, NoCapacity
from tests.clocks import ManualClock
from tests.unit.cloud.launches import LAUNCH


async def test_the_same_token_makes_one_machine() -> None:
    cloud = MemoryCloud(ManualClock())

    first, second = await cloud.create(LAUNCH), await cloud.create(LAUNCH)

    assert first.machine_id == second.machine_id
    assert len(await cloud.list("lab")) == 1


async def test_the_same_token_for_another_machine_is_refused() -> None:
    cloud = MemoryCloud(ManualClock())
    await cloud.create(LAUNCH)

    with pytest.raises(Conflict) as refused:
        await cloud.create(replace(LAUNCH, machine_type="g5.xlarge"))

    assert refused.value.data["spent"] is False


async def test_a_token_whose_machine_is_gone_is_spent() -> None:
    cloud = MemoryCloud(ManualClock())
    await cloud.terminate((await cloud.create(LAUNCH)).machine_id)

    with pytest.raises(Conflict) as refused:
        await cloud.create(LAUNCH)

    assert refused.value.data["spent"] is True


async def test_a_boot_takes_its_time() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock, boot_s=60)
    machine_id = (await cloud.create(LAUNCH)).machine_id

    clock.advance(59)
    assert [machine.state for machine in await cloud.list("lab")] == [MachineState.PENDING]
    clock.advance(1)
    assert [machine.state for machine in await cloud.list("lab")] == [MachineState.RUNNING]

    await cloud.stop(machine_id)
    with pytest.raises(Conflict, match="stopping"):
        await cloud.start(machine_id)


async def test_a_full_zone_has_no_capacity() -> None:
    cloud = MemoryCloud(ManualClock())
    cloud.problem = NoCapacity("full")

    with pytest.raises(NoCapacity):
        await cloud.create(LAUNCH)
    assert await cloud.list("lab") == []


async def test_a_machine_that_is_gone_cannot_be_stopped() -> None:
    cloud = MemoryCloud(ManualClock())
    machine = await cloud.create(LAUNCH)
    await cloud.terminate(machine.machine_id)

    with pytest.raises(Conflict):
        await cloud.stop(machine.machine_id)


async def test_a_machine_on_spot_is_warned_before_it_is_taken() -> None:
    cloud = MemoryCloud(ManualClock())
    machine_id = (await cloud.create(replace(LAUNCH, spot=True))).machine_id

    cloud.interrupt(machine_id, "marked for stop", stopped=False)
    (warned,) = await cloud.list("lab")
    cloud.interrupt(machine_id, "taken back", stopped=True)
    (taken,) = await cloud.list("lab")

    assert (warned.state, warned.interrupted) == (MachineState.RUNNING, "marked for stop")
    assert (taken.state, taken.interrupted) == (MachineState.STOPPED, "taken back")


async def test_a_machine_needs_an_image() -> None:
    with pytest.raises(InvalidInput):
        await MemoryCloud(ManualClock()).create(replace(LAUNCH, image=""))
