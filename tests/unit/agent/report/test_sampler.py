import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import AgentConfig
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.crew import Crew
from muster.agent.outbox import Outbox
from muster.agent.report.sampler import NodeState, Sampler
from muster.agent.surroundings import Surroundings
from muster.domain.gpu import Gpu
from muster.domain.node import Health, NodeFacts, Phase
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import UpstreamFailed
from muster.ids import worker_id
from tests.unit.agent.nodes import NODE, FakeGpus, FakeHost, gpu, simulated_gpus
from tests.unit.agent.queues import FakeQueue
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time


def worker(status: WorkerStatus) -> Worker:
    return Worker(worker_id=worker_id(NODE, 0), index=0, status=status)


class Bench:
    def __init__(self, phase: Phase = Phase.READY, probe: FakeGpus | None = None, wanted: int | None = None) -> None:
        self.state = NodeState(NodeFacts(node_id=NODE), phase)
        self.board = ServiceBoard()
        self.board.measured_by(self.read_processes)
        self.processes: tuple[ProcessFigures, ...] = ()
        clock, tell = LoopClock(), lambda *_, **__: None
        self.gpus = Gpus(probe or FakeGpus(), simulated_gpus, wanted, clock, tell, self.board.services)
        around = Surroundings(
            address="127.0.0.1",
            connectors={},
            board=self.board,
            outbox=Outbox(NODE, LoopClock()),
            clock=LoopClock(),
            rng=random.Random(1),
            look_every_s=5.0,
        )
        crew = Crew(AgentConfig(node_id=NODE), FakeQueue(), self.gpus, FakeHost(), 2, around, lambda: None)
        self.sampler = Sampler(self.state, "boot-a", 10.0, FakeHost(), self.gpus, self.board, crew)

    async def read_processes(self) -> tuple[ProcessFigures, ...]:
        return self.processes

    def put(self, name: str, status: ServiceStatus, *, expected: bool = True, **more: Any) -> None:
        service = Service(name=name, connector="chat", status=status, url="http://127.0.0.1:1", **more)
        self.board.put(Entry(service=service, public_url="http://10.0.0.7:1", expected=expected))


@in_virtual_time
async def test_each_sample_has_a_number_and_the_figures_of_now() -> None:
    bench = Bench(probe=FakeGpus(gpu(0)))
    await bench.gpus.take_stock()
    bench.put("llama", ServiceStatus.RUNNING)
    bench.processes = (ProcessFigures(name="llama", group="llama", pid=41, rss_mb=300.5),)
    first, second = await bench.sampler.sample(), await bench.sampler.sample(draining=True)
    assert (first.seq, second.seq) == (1, 2)
    assert (first.draining, second.draining) == (False, True)
    assert first.resources.memory_total_mb == 64_000
    assert first.resources.cpu_percent is None
    assert first.gpus == (gpu(0),)
    assert first.processes == bench.processes
    assert first.services[0].url == "http://10.0.0.7:1"


@in_virtual_time
async def test_a_figure_that_cannot_be_read_is_none_and_the_gpu_stays_listed() -> None:
    probe = FakeGpus(gpu(0, utilization_percent=50.0, uuid="u0"), gpu(1))
    bench = Bench(Phase.CONFIGURING, probe)
    await bench.gpus.take_stock()
    probe.gpus = (gpu(1),)
    beat = await bench.sampler.sample()
    why = "it is not seen any more"
    assert beat.gpus[0] == Gpu(index=0, name="RTX 4090", uuid="u0", memory_total_mb=24_564, out_of_service=why)
    assert beat.gpus[1] == gpu(1)
    assert beat.reason == "GPU 0 is out of service: it is not seen any more"
    probe.error = UpstreamFailed("the driver hangs")
    beat = await bench.sampler.sample()
    assert [each.memory_used_mb for each in beat.gpus] == [None, None]
    assert "the driver hangs" in (beat.reason or "")


@in_virtual_time
async def test_a_gpu_probe_that_hangs_does_not_hang_the_heartbeat() -> None:
    class Hanging(FakeGpus):
        async def read(self) -> tuple[Gpu, ...]:
            if self.error is not None:
                await asyncio.Event().wait()
            return self.gpus

    probe = Hanging(gpu(0))
    bench = Bench(probe=probe)
    await bench.gpus.take_stock()
    probe.error = UpstreamFailed("")
    started_s = LoopClock().monotonic_s()
    beat = await bench.sampler.sample()
    assert LoopClock().monotonic_s() - started_s < 10
    assert beat.gpus[0].memory_used_mb is None


@in_virtual_time
async def test_simulated_gpus_are_marked() -> None:
    bench = Bench(wanted=2)
    await bench.gpus.take_stock()
    assert [each.simulated for each in (await bench.sampler.sample()).gpus] == [True, True]


@pytest.mark.parametrize(
    ("phase", "workers", "status"),
    [
        (Phase.READY, [WorkerStatus.IDLE], Health.HEALTHY),
        (Phase.READY, [WorkerStatus.DRAINING], Health.HEALTHY),
        (Phase.READY, [WorkerStatus.ERROR, WorkerStatus.BUSY], Health.HEALTHY),
        (Phase.READY, [WorkerStatus.ERROR], Health.UNHEALTHY),
        (Phase.READY, [], Health.UNHEALTHY),
        (Phase.CONFIGURING, [], Health.HEALTHY),
        (Phase.STOPPING, [WorkerStatus.STOPPED], Health.HEALTHY),
    ],
)
def test_a_ready_node_without_a_working_worker_is_unhealthy(
    phase: Phase, workers: list[WorkerStatus], status: Health
) -> None:
    assert Bench(phase).sampler.judge(None, [worker(each) for each in workers]).status is status


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ({"status": ServiceStatus.FAILED, "error": "exit 3"}, "service llama failed: exit 3"),
        ({"status": ServiceStatus.UNHEALTHY}, "service llama does not answer: for an unknown reason"),
        ({"status": ServiceStatus.STARTING, "restarts": 2, "error": "x"}, "service llama is being restarted: x"),
        ({"status": ServiceStatus.STARTING}, None),
        ({"status": ServiceStatus.FAILED, "expected": False}, None),
    ],
)
def test_a_service_that_should_run_and_does_not_degrades_the_node(service: dict[str, Any], reason: str | None) -> None:
    bench = Bench()
    bench.put("llama", **service)
    judgement = bench.sampler.judge(None, [worker(WorkerStatus.IDLE)])
    assert judgement.reason == reason
    assert judgement.status is (Health.HEALTHY if reason is None else Health.DEGRADED)


def test_all_reasons_are_told() -> None:
    bench = Bench()
    bench.state.problems = {"read_devices": "no driver"}
    bench.put("llama", ServiceStatus.FAILED, error="exit 3")
    judgement = bench.sampler.judge("GPU 0 is not seen any more", [worker(WorkerStatus.IDLE)])
    assert judgement.reason == "read_devices: no driver; service llama failed: exit 3; GPU 0 is not seen any more"


def test_a_busy_slot_is_no_news_a_new_model_is(tmp_path: Path) -> None:
    board, news = ServiceBoard(), []
    board.on_change(lambda: news.append(1))
    service = Service(name="llama", connector="chat", status=ServiceStatus.RUNNING, slots=4, slots_busy=0)
    for busy, slots in ((0, 4), (3, 4), (3, 8)):
        changed = Service(
            **{**{f: getattr(service, f) for f in service.__struct_fields__}, "slots_busy": busy, "slots": slots}
        )
        board.put(Entry(service=changed, public_url=None))
    assert len(news) == 2


@in_virtual_time
async def test_a_node_that_did_not_come_up_is_unhealthy_and_says_why() -> None:
    bench = Bench(phase=Phase.ERROR)
    bench.state.problems = {"workers_starting": "no room"}
    sample = await bench.sampler.sample()
    assert (sample.status, sample.reason) == (Health.UNHEALTHY, "it did not come up: workers_starting: no room")
