"""A driver that hangs, or loses a GPU: ticks go on, every second, with what is known."""

import asyncio
import random
from typing import Any

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import AgentConfig
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.crew import Crew
from muster.agent.outbox import Outbox
from muster.agent.report.hive import HiveReport
from muster.agent.report.sampler import NodeState, Sampler
from muster.agent.surroundings import Surroundings
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.node import NodeFacts, Phase
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamTimeout
from muster.ports import GpuProbe
from muster.wire.hives import HiveHeartbeat, HiveWorker, workers_told
from tests.unit.agent.nodes import NODE, FakeHost, simulated_gpus
from tests.unit.agent.queues import FakeQueue
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes


class Driver:
    """Reads at once, or hangs until its deadline of 5 s as `nvidia-smi` and NVML have one."""

    def __init__(self, count: int = 1) -> None:
        self.hangs = False
        self.reads = 0
        self.gpus = tuple(
            Gpu(index=index, uuid=f"u{index}", memory_total_mb=24_564, owners=()) for index in range(count)
        )

    async def read(self) -> tuple[Gpu, ...]:
        self.reads += 1
        if self.hangs:
            await time_passes(5.0)
            raise UpstreamTimeout("nvidia-smi did not answer within 5 s")
        return self.gpus


class Node:
    """The reporting half of an agent with a service on each GPU."""

    def __init__(self, driver: GpuProbe, count: int = 1, *, interval_s: float = 1.0, every_s: float = 1.0) -> None:
        clock, board, outbox = LoopClock(), ServiceBoard(), Outbox(NODE, LoopClock())
        self.outbox = outbox
        self.gpus = Gpus(driver, simulated_gpus, None, clock, outbox.add, board.services)
        around = Surroundings(
            address="127.0.0.1",
            connectors={},
            board=board,
            outbox=outbox,
            clock=clock,
            rng=random.Random(1),
            look_every_s=5.0,
        )
        crew = Crew(AgentConfig(node_id=NODE), FakeQueue(), self.gpus, FakeHost(), 2, around, lambda: None)
        state = NodeState(NodeFacts(node_id=NODE), Phase.CONFIGURING)
        self.sampler = Sampler(state, "b", interval_s, FakeHost(), self.gpus, board, crew)
        for index in range(count):
            service = Service(
                name=f"llama-gpu{index}",
                connector="llamacpp",
                status=ServiceStatus.RUNNING,
                pid=100 + index,
                gpu_index=index,
            )
            board.put(Entry(service=service, public_url=None))
        self.sent: list[HiveHeartbeat] = []
        self.report = HiveReport(
            self.sampler.hive, self.sampler.hive_workers, self._send, outbox.add, clock, interval_s=every_s
        )

    async def _send(self, message: HiveHeartbeat) -> None:
        self.sent.append(message)

    async def told_of_its_gpus(self) -> bool:
        await self.report.report()
        return all(worker.gpu_known for worker in self.sent[-1].workers)

    def figures(self) -> list[tuple[int | None, bool, int | None]]:
        return [(worker.pid, worker.gpu_known, worker.total_vram_mb) for worker in self.sent[-1].workers]


@in_virtual_time
async def test_nvidia_smi_timeout() -> None:
    """Ticks come every second from the first one on; the figures are those of before for six seconds, then none."""
    driver = Driver()
    node = Node(driver)
    await node.gpus.take_stock()
    await node.report.start()
    await time_passes(2.5)
    assert node.figures() == [(100, True, 24_564)]
    driver.hangs = True
    await time_passes(30.0)
    assert 31 <= len(node.sent) <= 33
    (worker,) = node.sent[-1].workers
    assert (worker.gpu_util_pct, worker.vram_mb, worker.gpu_known) == (0.0, 0, False)
    driver.hangs = False
    await time_passes(7.0)
    assert node.figures() == [(100, True, 24_564)]
    await node.report.stop()


@in_virtual_time
async def test_a_driver_that_hangs_does_not_make_a_node_late_that_reports_every_second() -> None:
    driver = Driver()
    node = Node(driver, interval_s=1.0)
    await node.gpus.take_stock()
    await node.sampler.sample()
    driver.hangs = True
    for _ in range(20):
        began_s = LoopClock().monotonic_s()
        beat = await node.sampler.sample()
        assert LoopClock().monotonic_s() - began_s <= 0.5
        await time_passes(0.5)
    assert (beat.gpus[0].utilization_percent, beat.gpus[0].owners) == (None, None)
    assert "GPU" in (beat.reason or "")
    assert driver.reads < 10, "it is not asked again while it hangs"


@in_virtual_time
async def test_one_of_eight_gpus_is_removed_while_it_runs() -> None:
    driver = Driver(8)
    node = Node(driver, 8)
    await node.gpus.take_stock()
    await node.report.start()
    await time_passes(1.5)
    assert [known for _, known, _ in node.figures()] == [True] * 8
    driver.gpus = tuple(gpu for gpu in driver.gpus if gpu.index != 3)
    await time_passes(1.0)
    assert [known for _, known, _ in node.figures()] == [True] * 3 + [False] + [True] * 4
    assert len(node.sent) in {3, 4}
    beat = await node.sampler.sample()
    assert [gpu.out_of_service is not None for gpu in beat.gpus] == [False] * 3 + [True] + [False] * 4
    await node.report.stop()


@in_virtual_time
async def test_two_that_ask_at_once_share_one_reading() -> None:
    driver = Driver()
    node = Node(driver)
    await node.gpus.take_stock()
    driver.reads = 0
    await asyncio.gather(node.sampler.sample(), node.sampler.hive_workers())
    assert driver.reads == 1


def test_missing_gpu() -> None:
    """Without one the telemetry is whole: 0 by this API's words, and `gpu_known` says what that is worth."""
    worker = _told(gpus=())
    assert (worker.gpu_util_pct, worker.vram_mb, worker.total_vram_mb, worker.gpu_known) == (0.0, 0, 0, False)


def test_a_worker_that_does_not_use_its_gpu_is_known_to_be_idle() -> None:
    worker = _told(gpus=(Gpu(index=0, memory_total_mb=24_564, owners=()),))
    assert (worker.gpu_util_pct, worker.vram_mb, worker.gpu_known) == (0.0, 0, True)


def test_a_worker_on_two_gpus_is_told_with_the_sum_of_both() -> None:
    def gpu(index: int, **more: Any) -> Gpu:
        owner = GpuOwner(name="llama", memory_mb=1000, service=True, **more)
        return Gpu(index=index, memory_total_mb=24_564, owners=(owner,))

    worker = _told(gpus=(gpu(0, utilization_percent=30.0), gpu(1, utilization_percent=12.5)))
    assert (worker.gpu_util_pct, worker.vram_mb, worker.total_vram_mb) == (42.5, 2000, 49_128)
    worker = _told(gpus=(gpu(0, utilization_percent=30.0), gpu(1)))
    assert not worker.gpu_known, "a sum with an unknown part is unknown"


def _told(gpus: tuple[Gpu, ...]) -> HiveWorker:
    service = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, pid=7, gpu_index=0)
    (worker,) = workers_told([service], (), gpus)
    return worker
