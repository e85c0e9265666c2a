import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from muster.cloud.bring_up import BringUp, launch_token
from muster.cloud.memory import MemoryCloud
from muster.domain.machine import Launch, Machine, MachineState
from muster.errors import Conflict, NoCapacity, OverBudget
from tests.clocks import ManualClock
from tests.unit.cloud.launches import LAUNCH


def allow(_running: Sequence[Machine], _machine_type: str, /, *, spot: bool) -> None:
    """Let everything pass."""


def bring_up(cloud: MemoryCloud, clock: ManualClock, check=allow) -> BringUp:
    return BringUp(cloud, clock, check, look_every_s=0)


async def test_twice_makes_no_second_machine() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock)

    first = await bring_up(cloud, clock).run(LAUNCH, 2)
    second = await bring_up(cloud, clock).run(LAUNCH, 2)

    assert [machine.machine_id for machine in first] == [machine.machine_id for machine in second]
    assert sorted(machine.name for machine in await cloud.list("lab")) == ["worker-0", "worker-1"]


async def test_two_who_have_not_seen_each_others_machine_make_one() -> None:
    clock = ManualClock()

    class Blind(MemoryCloud):
        """Lists nothing yet, as a cloud may do right after a launch."""

        async def list(self, fleet: str) -> list[Machine]:
            return []

    cloud = Blind(clock)
    runs = await asyncio.gather(*(bring_up(cloud, clock).run(LAUNCH, 1) for _ in range(3)))

    assert len({machine.machine_id for (machine,) in runs}) == 1


async def test_a_stopped_machine_of_that_name_is_started() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock)
    (made,) = await bring_up(cloud, clock).run(LAUNCH, 1)
    await cloud.list("lab")
    await cloud.stop(made.machine_id)

    (again,) = await bring_up(cloud, clock).run(LAUNCH, 1)

    assert again.machine_id == made.machine_id
    assert ("start", made.machine_id) in cloud.calls


async def test_a_machine_that_is_stopping_is_waited_for() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock, boot_s=30)
    (made,) = await bring_up(cloud, clock).run(LAUNCH, 1)
    clock.advance(30)
    await cloud.list("lab")
    await cloud.stop(made.machine_id)

    run = asyncio.create_task(bring_up(cloud, clock).run(LAUNCH, 1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not run.done()
    clock.advance(30)

    assert (await run)[0].state is MachineState.PENDING


async def test_after_the_end_of_a_machine_its_name_gets_a_new_one() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock)
    ids = set()
    for _ in range(4):
        (machine,) = await bring_up(cloud, clock).run(LAUNCH, 1)
        ids.add(machine.machine_id)
        await cloud.terminate(machine.machine_id)

    assert len(ids) == 4


async def test_what_the_cloud_refuses_is_told() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock)
    cloud.problem = NoCapacity("full")

    with pytest.raises(NoCapacity):
        await bring_up(cloud, clock).run(LAUNCH, 1)


async def test_a_machine_of_another_kind_that_somebody_has_just_made_is_kept() -> None:
    clock = ManualClock()

    class BlindAtFirst(MemoryCloud):
        looks = 0

        async def list(self, fleet: str) -> list[Machine]:
            self.looks += 1
            return [] if self.looks == 1 else await super().list(fleet)

    cloud = BlindAtFirst(clock)
    token = launch_token("lab", "worker-0", 0)
    theirs = await cloud.create(replace(LAUNCH, token=token, name="worker-0", machine_type="g5.xlarge"))

    (mine,) = await bring_up(cloud, clock).run(LAUNCH, 1)

    assert mine.machine_id == theirs.machine_id


async def test_a_token_that_came_to_nothing_for_another_kind_gives_way_to_the_next() -> None:
    clock = ManualClock()

    class Forgetful(MemoryCloud):
        async def create(self, launch: Launch) -> Machine:
            if launch.token == launch_token("lab", "worker-0", 0):
                raise Conflict("another kind was asked for", spent=False)
            return await super().create(launch)

    (machine,) = await bring_up(Forgetful(clock), clock).run(LAUNCH, 1)

    assert machine.name == "worker-0"


async def test_the_budget_is_asked_before_anything_is_made_or_started() -> None:
    clock = ManualClock()
    cloud = MemoryCloud(clock)
    (made,) = await bring_up(cloud, clock).run(LAUNCH, 1)

    def refuse(running: Sequence[Machine], machine_type: str, /, *, spot: bool) -> None:
        raise OverBudget(f"{len(running)} run, {machine_type} is too much")

    assert await bring_up(cloud, clock, refuse).run(LAUNCH, 1), "what runs is asked of nobody"
    with pytest.raises(OverBudget, match=r"1 run, g6\.xlarge"):
        await bring_up(cloud, clock, refuse).run(LAUNCH, 2)
    await cloud.stop(made.machine_id)
    await cloud.list("lab")
    with pytest.raises(OverBudget, match="0 run"):
        await bring_up(cloud, clock, refuse).run(LAUNCH, 1)
