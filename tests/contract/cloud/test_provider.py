"""What every cloud must do, tried on the twin in memory and on EC2 as moto imitates it."""

import pytest
from msgspec.structs import replace

from muster.domain.machine import GONE, Launch, Machine, MachineState
from muster.errors import MachineNotFound
from muster.ports import CloudProvider
from tests.moto_server import IMAGE
from tests.waiting import eventually

LAUNCH = Launch(
    token="t-1",
    fleet="lab",
    name="worker-0",
    machine_type="g6.xlarge",
    image=IMAGE,
    models=("qwen2.5:7b", "llama3"),
    owner="ada",
    idle_stop_s=120.0,
    user_data="#cloud-config\n{}\n",
)


async def find(provider: CloudProvider, machine_id: str) -> Machine:
    return next(machine for machine in await provider.list("lab") if machine.machine_id == machine_id)


async def until(provider: CloudProvider, machine_id: str, state: MachineState) -> Machine:
    async def reached() -> Machine | None:
        machine = await find(provider, machine_id)
        return machine if machine.state is state else None

    machine = await eventually(reached)
    assert machine is not None
    return machine


async def test_a_new_machine_is_listed_with_all_that_it_is_for(provider: CloudProvider) -> None:
    made = await provider.create(LAUNCH)

    machine = await until(provider, made.machine_id, MachineState.RUNNING)

    assert machine.machine_id.startswith("i-")
    assert (machine.fleet, machine.name, machine.owner) == ("lab", "worker-0", "ada")
    assert machine.models == ("qwen2.5:7b", "llama3")
    assert machine.idle_stop_s == 120.0
    assert machine.machine_type == "g6.xlarge"
    assert machine.spot is False
    assert machine.started_at_ms > 0
    assert machine.private_ip


async def test_only_machines_of_the_fleet_are_listed(provider: CloudProvider) -> None:
    mine = await provider.create(LAUNCH)
    await provider.create(replace(LAUNCH, token="t-2", fleet="other"))

    assert [machine.machine_id for machine in await provider.list("lab")] == [mine.machine_id]


async def test_a_machine_stops_and_starts_and_keeps_its_id(provider: CloudProvider) -> None:
    made = await provider.create(LAUNCH)
    await until(provider, made.machine_id, MachineState.RUNNING)

    await provider.stop(made.machine_id)
    stopped = await until(provider, made.machine_id, MachineState.STOPPED)
    await provider.start(made.machine_id)
    running = await until(provider, made.machine_id, MachineState.RUNNING)

    assert running.models == stopped.models == LAUNCH.models


async def test_starting_what_runs_and_stopping_what_is_stopped_changes_nothing(provider: CloudProvider) -> None:
    made = await provider.create(LAUNCH)
    await until(provider, made.machine_id, MachineState.RUNNING)
    await provider.start(made.machine_id)
    await until(provider, made.machine_id, MachineState.RUNNING)
    await provider.stop(made.machine_id)
    await until(provider, made.machine_id, MachineState.STOPPED)

    await provider.stop(made.machine_id)

    assert (await find(provider, made.machine_id)).state is MachineState.STOPPED


async def test_a_terminated_machine_is_gone_for_good(provider: CloudProvider) -> None:
    made = await provider.create(LAUNCH)

    ended = await provider.terminate(made.machine_id)

    assert ended.state in GONE
    await until(provider, made.machine_id, MachineState.TERMINATED)


async def test_a_machine_on_spot_says_so(provider: CloudProvider) -> None:
    made = await provider.create(replace(LAUNCH, spot=True))

    assert (await find(provider, made.machine_id)).spot is True
    assert (await provider.terminate(made.machine_id)).state in GONE


@pytest.mark.parametrize("act", ["start", "stop", "terminate"])
async def test_an_unknown_machine_is_named(provider: CloudProvider, act: str) -> None:
    with pytest.raises(MachineNotFound, match="i-0123456789abcdef0"):
        await getattr(provider, act)("i-0123456789abcdef0")


async def test_prices_are_known_or_none(provider: CloudProvider) -> None:
    assert provider.hourly_usd("g6.xlarge", spot=False) == 0.8048
    assert provider.hourly_usd("g6.xlarge", spot=True) == 0.8048
    assert provider.hourly_usd("made.up", spot=False) is None
