"""The GPUs of a node: more or fewer than wanted, gone and back, and who uses them."""

import asyncio
from typing import Any

import pytest

from muster.agent.gpus.gpus import GpuReading, Gpus
from muster.agent.gpus.owners import Trace
from muster.domain.gpu import Gpu, GpuFault, GpuOwner
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed
from tests.clocks import ManualClock
from tests.unit.agent.nodes import FakeGpus, gpu, simulated_gpus
from tests.unit.agent.virtual_time import in_virtual_time


class Bench:
    def __init__(self, *gpus: Gpu, wanted: int | None = None) -> None:
        self.probe = FakeGpus(*gpus)
        self.clock = ManualClock()
        self.told: list[dict[str, Any]] = []
        self.services: list[Service] = []
        self.gpus = Gpus(
            self.probe,
            simulated_gpus,
            wanted,
            self.clock,
            lambda kind, **data: self.told.append({"kind": kind, **data}),
            lambda: self.services,
            lambda pid: Trace(frozenset({pid, pid - 1})),
        )

    async def read(self, *gpus: Gpu, after_s: float = 1.0) -> GpuReading:
        self.probe.gpus = gpus
        self.clock.advance(after_s)
        return await self.gpus.read()


async def bench(*gpus: Gpu, wanted: int | None = None) -> Bench:
    made = Bench(*gpus, wanted=wanted)
    await made.gpus.take_stock()
    return made


async def test_one_lost_gpu_is_out_alone_and_back_by_itself() -> None:
    node = await bench(gpu(0, uuid="a"), gpu(1, uuid="b"))
    reading = await node.read(gpu(0, uuid="a"), gpu(1, uuid="b", fault=GpuFault.LOST))
    assert reading.out_of_service == {1}
    assert reading.problem == "GPU 1 is out of service: it fell off the bus"
    assert reading.gpus[0] == gpu(0, uuid="a")
    assert (reading.gpus[1].memory_used_mb, reading.gpus[1].fault) == (None, GpuFault.LOST)
    await node.read(gpu(0, uuid="a"), gpu(1, uuid="b"))
    reading = await node.read(gpu(0, uuid="a"), gpu(1, uuid="b"), after_s=30)
    assert (reading.out_of_service, reading.problem) == (frozenset(), None)
    named = {"gpu": 1, "name": "RTX 4090", "uuid": "b"}
    assert node.told == [
        {"kind": "gpu_out_of_service", **named, "reason": "it fell off the bus"},
        {"kind": "gpu_in_service", **named, "after": "it fell off the bus"},
    ]


async def test_when_numbers_shift_each_gpu_is_still_itself() -> None:
    node = await bench(gpu(0, uuid="a"), gpu(1, uuid="b"))
    reading = await node.read(gpu(0, uuid="b", utilization_percent=9.0))
    assert reading.out_of_service == {0}
    assert reading.gpus[1] == gpu(1, uuid="b", utilization_percent=9.0)


async def test_a_gpu_that_does_not_tell_its_uuid_is_known_by_its_number() -> None:
    node = await bench(gpu(0, uuid="a"), gpu(1))
    reading = await node.read(gpu(0), gpu(1, uuid="b"))
    assert reading.out_of_service == frozenset()


async def test_another_gpu_in_the_place_of_one_is_not_it() -> None:
    node = await bench(gpu(0, uuid="a"))
    assert (await node.read(gpu(0, uuid="other"))).out_of_service == {0}


async def test_a_slow_reading_is_told_before_it_takes_the_gpu_out() -> None:
    node = await bench(gpu(0))
    silent = gpu(0).without_figures(GpuFault.SILENT)
    reading = await node.read(silent)
    assert (reading.problem, reading.out_of_service) == ("GPU 0 cannot be read", frozenset())
    reading = await node.read(silent, after_s=5)
    assert reading.problem == "GPU 0 is out of service: its driver does not answer"
    node.probe.error = UpstreamFailed("no")
    reading = await node.read()
    assert reading.problem == ("the GPUs cannot be read: no; GPU 0 is out of service: its driver does not answer")


async def test_gpus_that_come_and_go_while_it_runs_are_told_of_once() -> None:
    node = await bench()
    assert (await node.read()).gpus == ()
    for _ in range(2):
        assert (await node.read(gpu(0), gpu(1))).gpus == ()
    assert node.told == [{"kind": "gpu_count_mismatch", "wanted": 0, "found": 2, "used": 0, "simulated": 0}]


@pytest.mark.parametrize(("wanted", "used"), [(0, 0), (2, 2), (None, 2)])
async def test_one_that_is_gone_is_a_mismatch_whatever_was_wanted(wanted: int | None, used: int) -> None:
    node = await bench(gpu(0), gpu(1), wanted=wanted)
    node.told.clear()
    await node.read(gpu(0))
    assert node.told[0] == {
        "kind": "gpu_count_mismatch", "wanted": used if wanted is None else wanted, "found": 1, "used": used,
        "simulated": 0,
    }  # fmt: skip


async def test_a_real_gpu_that_comes_beside_simulated_ones_is_told_of_and_they_stay() -> None:
    node = await bench(wanted=2)
    node.told.clear()
    reading = await node.read(gpu(0))
    assert [each.simulated for each in reading.gpus] == [True, True]
    assert node.told == [{"kind": "gpu_count_mismatch", "wanted": 2, "found": 1, "used": 2, "simulated": 2}]


async def test_gpus_that_can_be_read_only_later_are_told_of() -> None:
    node = Bench(wanted=1)
    node.probe.error = UpstreamFailed("the driver hangs")
    with pytest.raises(UpstreamFailed):
        await node.gpus.take_stock()
    assert await node.read() == GpuReading(())
    node.probe.error = None
    assert (await node.read(gpu(0))).gpus == ()
    assert node.told == [{"kind": "gpu_count_mismatch", "wanted": 1, "found": 1, "used": 0, "simulated": 0}]


async def test_processes_are_told_as_those_of_services_and_of_others() -> None:
    node = await bench(gpu(0))
    node.services = [Service(name="llama", connector="chat", status=ServiceStatus.RUNNING, pid=10)]
    processes = (GpuOwner(name="python3", pids=(11,), memory_mb=300), GpuOwner(name="blender", pids=(99,), memory_mb=4))
    reading = await node.read(gpu(0, owners=processes))
    assert reading.gpus[0].owners == (
        GpuOwner(name="llama", memory_mb=300, service=True),
        GpuOwner(name="blender", pids=(99,), memory_mb=4),
    )


async def test_where_a_card_is_split_cuda_is_told_all_by_name() -> None:
    assert (await bench(gpu(0, uuid="a"), gpu(1))).gpus.cuda_names == {}
    split = await bench(gpu(0, uuid="MIG-a", parent="GPU-x"), gpu(1, uuid="GPU-b"), gpu(2))
    assert split.gpus.cuda_names == {0: "MIG-a", 1: "GPU-b"}


@in_virtual_time
async def test_a_probe_that_keeps_no_deadline_is_not_waited_for() -> None:
    class Hanging(FakeGpus):
        async def read(self) -> tuple[Gpu, ...]:
            await asyncio.Event().wait()
            return ()

    node = await bench(gpu(0))
    node.gpus._probe = Hanging()
    assert (await node.gpus.read()).problem == "the GPUs cannot be read: no figures within 6 s"
