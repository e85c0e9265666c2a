"""An agent from coming up to going away, in virtual time; services as real processes are tried elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.connectors import FakeConnector, take_payload_seconds
from tests.unit.agent.nodes import FakeGpus, FakePlane, agent, gpu
from tests.unit.agent.queues import FakeQueue, spec
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, until

from muster.agent.agent import Agent
from muster.agent.config import ServiceTemplate
from muster.domain.command import Command
from muster.domain.node import Health, Phase
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.errors import SetupError, UpstreamFailed
from muster.ids import CommandId, NodeId
from muster.wire import HeartbeatReply


@asynccontextmanager
async def running(plane: FakePlane, queue: FakeQueue, data_dir: Path, **more: Any) -> AsyncIterator[Agent]:
    node = agent(plane, queue, data_dir, **more)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def command(name: str, number: int = 1, **args: Any) -> Command:
    return Command(command_id=CommandId(f"command-{number}"), node_id=NodeId("gpu-1"), command=name, args=args)


# --- coming up -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_node_comes_up_step_by_step_and_tells_each(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    async with running(plane, queue, tmp_path, gpus=FakeGpus(gpu(0), gpu(1))):
        await until(lambda: "node_ready" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
    steps = [told["step"] for told in plane.told("step_started")]
    assert steps == [
        "identify", "read_devices", "join_fleet", "fetch_models", "start_services", "attach_services", "start_workers",
    ]  # fmt: skip
    assert [told["step"] for told in plane.told("step_done")] == steps
    phases = [beat.phase for beat in plane.heartbeats]
    assert sorted(phases, key=list(Phase).index) == phases
    ready = next(beat for beat in plane.heartbeats if beat.phase is Phase.READY)
    assert ready.facts.node_type == "gpu-worker"
    assert [worker.worker_id for worker in ready.workers] == ["gpu-1-worker-0", "gpu-1-worker-1"]
    assert [worker.gpu_index for worker in ready.workers] == [0, 1]
    assert len(plane.registrations) == 1


@in_virtual_time
async def test_a_node_without_gpus_has_one_worker(tmp_path: Path) -> None:
    plane = FakePlane()
    async with running(plane, FakeQueue(), tmp_path):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
    assert len(plane.heartbeats[-1].workers) == 1
    assert plane.heartbeats[-1].facts.node_type == "cpu-worker"
    assert "gpu_count_mismatch" not in plane.kinds()


@pytest.mark.parametrize(
    ("real", "wanted", "used", "simulated", "mismatch"),
    [(2, 2, 2, 0, False), (1, 2, 1, 0, True), (4, 2, 2, 0, True), (0, 3, 3, 3, True), (0, 0, 0, 0, False), (2, 0, 0, 0, True)],
)  # fmt: skip
def test_gpus_are_as_many_as_asked_for_or_the_difference_is_told(
    tmp_path: Path, real: int, wanted: int, used: int, simulated: int, mismatch: bool  # noqa: FBT001  # a table
) -> None:  # fmt: skip
    @in_virtual_time
    async def run() -> None:
        plane = FakePlane()
        gpus = FakeGpus(*(gpu(index) for index in range(real)))
        async with running(plane, FakeQueue(), tmp_path, gpus=gpus, num_gpus=wanted):
            await until(lambda: "node_ready" in plane.kinds())
            await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
        beat = plane.heartbeats[-1]
        assert len(beat.gpus) == used
        assert len(beat.workers) == max(1, used)
        assert sum(each.simulated for each in beat.gpus) == simulated
        told = plane.told("gpu_count_mismatch")
        expected = {"wanted": wanted, "found": real, "used": used, "simulated": simulated}
        assert told == ([expected] if mismatch else [])

    run()


@in_virtual_time
async def test_gpus_that_cannot_be_read_do_not_keep_a_node_from_coming_up(tmp_path: Path) -> None:
    plane, gpus = FakePlane(), FakeGpus(gpu(0))
    gpus.error = UpstreamFailed("the driver hangs")
    async with running(plane, FakeQueue(), tmp_path, gpus=gpus):
        await until(lambda: "node_ready" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
    assert plane.told("step_failed")[0]["step"] == "read_devices"
    ready = next(beat for beat in plane.heartbeats if beat.phase is Phase.READY)
    assert ready.status is Health.DEGRADED
    assert ready.reason == "read_devices: the driver hangs"


@in_virtual_time
async def test_a_model_that_is_not_there_fails_its_service_and_nothing_else(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue([spec("a")])
    template = ServiceTemplate(name="llama", connector="work", command=("serve", "{model:smol}"))
    async with running(plane, queue, tmp_path, services=(template,)):
        await until(queue.ended)
        await until(lambda: "node_ready" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
        beat = plane.heartbeats[-1]
    assert [service.status for service in beat.services] == [ServiceStatus.FAILED]
    assert "no model 'smol'" in (beat.services[0].error or "")
    assert beat.status is Health.DEGRADED


@in_virtual_time
async def test_a_node_comes_up_and_works_while_its_control_plane_is_away(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue([spec("a")])

    async def away(_: str) -> None:
        if LoopClock().monotonic_s() < 1100:
            raise UpstreamFailed("nobody there")

    plane.trouble = away
    async with running(plane, queue, tmp_path):
        await until(queue.ended)
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        await until(lambda: "node_ready" in plane.kinds())
    assert plane.kinds().count("step_done") == 7


# --- services --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_named_service_is_attached_watched_and_offered(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue([spec("a", service="chat")])
    chat = FakeConnector("chat", needs_service=True)
    connectors = {"work": FakeConnector(), "chat": chat}
    url = "http://127.0.0.1:9000"
    async with running(plane, queue, tmp_path, connectors=connectors, attach=(("chat", url),)):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        assert plane.heartbeats[-1].status is Health.DEGRADED
        assert queue.capabilities[-1].services == ("work",)
        chat.serve(url, "smol:latest", slots=4)
        await until(lambda: plane.heartbeats[-1].status is Health.HEALTHY)
        service = plane.heartbeats[-1].services[0]
        assert (service.name, service.status, service.url, service.slots) == ("chat", ServiceStatus.RUNNING, url, 4)
        queue.line[:] = [] if not queue.line else queue.line  # the fake queue does not match
        await until(lambda: queue.capabilities[-1].services == ("work", "chat"))
        assert queue.capabilities[-1].models == ("smol",)
        del chat.alive[url]
        await until(lambda: plane.heartbeats[-1].status is Health.DEGRADED)
        assert queue.capabilities[-1].services == ("work", "chat")
        await until(lambda: queue.capabilities[-1].services == ("work",))


@in_virtual_time
async def test_an_unknown_connector_to_attach_is_a_mistake_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no connector 'paint'"):
        agent(FakePlane(), FakeQueue(), tmp_path, attach=(("paint", "http://127.0.0.1:1"),))
