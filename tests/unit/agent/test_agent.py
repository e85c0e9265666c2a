"""An agent from coming up to going away, in virtual time; services as real processes are tried elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.agent.agent import Agent
from muster.agent.config import ServiceTemplate
from muster.agent.jobs.crew import Crew
from muster.domain.gpu import GpuFault
from muster.domain.node import Health, Phase
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.errors import SetupError, UpstreamFailed
from muster.wire import HeartbeatReply
from tests.unit.agent.connectors import FakeConnector, take_payload_seconds
from tests.unit.agent.nodes import FakeGpus, FakePlane, agent, gpu
from tests.unit.agent.queues import FakeQueue, spec
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes, until


@asynccontextmanager
async def running(plane: FakePlane, queue: FakeQueue, data_dir: Path, **more: Any) -> AsyncIterator[Agent]:
    node = agent(plane, queue, data_dir, **more)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


# --- coming up -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_node_comes_up_step_by_step_and_tells_each(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    async with running(plane, queue, tmp_path, gpus=FakeGpus(gpu(0), gpu(1))):
        await until(lambda: "startup_complete" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
    steps = [told["step"] for told in plane.told("startup_step")]
    assert steps == [
        "identify", "read_devices", "join_fleet", "fetch_models", "start_services", "start_workers", "attach_services",
    ]  # fmt: skip
    assert [told["step"] for told in plane.told("step_done")] == steps
    assert [told["phase"] for told in plane.told("machine_startup")] == ["starting", "configuring", "ready"]
    assert [told["worker_count"] for told in plane.told("startup_complete")] == [2]
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
    ("real", "wanted", "used", "simulated"),
    [(2, 2, 2, 0), (1, 2, 1, 0), (4, 2, 2, 0), (0, 3, 3, 3), (0, 0, 0, 0), (2, 0, 0, 0)],
)
def test_gpus_are_as_many_as_asked_for_or_the_difference_is_told(
    tmp_path: Path, real: int, wanted: int, used: int, simulated: int
) -> None:
    @in_virtual_time
    async def run() -> None:
        plane = FakePlane()
        gpus = FakeGpus(*(gpu(index) for index in range(real)))
        async with running(plane, FakeQueue(), tmp_path, gpus=gpus, num_gpus=wanted):
            await until(lambda: "startup_complete" in plane.kinds())
            await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
        beat = plane.heartbeats[-1]
        assert len(beat.gpus) == used
        assert len(beat.workers) == max(1, used)
        assert sum(each.simulated for each in beat.gpus) == simulated
        told = plane.told("gpu_count_mismatch")
        expected = {"wanted": wanted, "found": real, "used": used, "simulated": simulated}
        assert told == ([expected] if real != wanted else [])

    run()


@in_virtual_time
async def test_gpus_that_cannot_be_read_do_not_keep_a_node_from_coming_up(tmp_path: Path) -> None:
    plane, gpus = FakePlane(), FakeGpus(gpu(0))
    gpus.error = UpstreamFailed("the driver hangs")
    async with running(plane, FakeQueue(), tmp_path, gpus=gpus):
        await until(lambda: "startup_complete" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
    assert plane.told("step_failed")[0]["step"] == "read_devices"
    ready = next(beat for beat in plane.heartbeats if beat.phase is Phase.READY)
    assert ready.status is Health.DEGRADED
    assert ready.reason == "read_devices: the driver hangs"


@in_virtual_time
async def test_a_node_whose_workers_cannot_start_is_not_ready_and_goes_on_saying_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: Crew) -> None:
        raise UpstreamFailed("no room for workers")

    monkeypatch.setattr(Crew, "start", start)
    plane = FakePlane()
    async with running(plane, FakeQueue(), tmp_path):
        await until(lambda: "startup_failed" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.ERROR)
        count = len(plane.heartbeats)
        await until(lambda: len(plane.heartbeats) > count)
    assert plane.told("startup_failed") == [{"step": "start_workers", "reason": "no room for workers"}]
    assert "startup_complete" not in plane.kinds()
    assert [told["phase"] for told in plane.told("machine_startup")] == ["starting"]
    failed = next(beat for beat in plane.heartbeats if beat.phase is Phase.ERROR)
    assert (failed.status, failed.workers) == (Health.UNHEALTHY, ())
    assert failed.reason == "it did not come up: start_workers: no room for workers"


@in_virtual_time
async def test_a_model_that_is_not_there_fails_its_service_and_nothing_else(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue([spec("a")])
    template = ServiceTemplate(name="llama", connector="work", command=("serve", "{model:smol}"))
    async with running(plane, queue, tmp_path, services=(template,)):
        await until(queue.ended)
        await until(lambda: "startup_complete" in plane.kinds())
        await until(lambda: plane.heartbeats[-1].phase is Phase.READY)
        beat = plane.heartbeats[-1]
    assert [service.status for service in beat.services] == [ServiceStatus.FAILED]
    assert "no model 'smol'" in (beat.services[0].error or "")
    assert beat.status is Health.DEGRADED


@in_virtual_time
async def test_why_a_model_cannot_be_fetched_is_told_with_what_to_do(tmp_path: Path) -> None:
    async def fetch(_: str) -> Path:
        raise SetupError("the disk is full", next_step="make room for 93 MB")

    plane = FakePlane()
    template = ServiceTemplate(name="llama", connector="work", command=("serve", "{model:smol}"))
    async with running(plane, FakeQueue(), tmp_path, services=(template,), fetch_model=fetch):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        assert "the disk is full: make room for 93 MB" in (plane.heartbeats[-1].reason or "")


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
        await until(lambda: "startup_complete" in plane.kinds())
    assert plane.kinds().count("step_done") == 7


# --- services --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_named_service_is_attached_watched_and_offered(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    chat = FakeConnector("chat", needs_service=True)
    connectors = {"work": FakeConnector(), "chat": chat}
    url = "http://127.0.0.1:9000"

    def offered() -> tuple[str, ...]:
        return queue.capabilities[-1].services

    async with running(plane, queue, tmp_path, connectors=connectors, attach=(("chat", url),)):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        assert plane.heartbeats[-1].status is Health.DEGRADED
        assert offered() == ("work",)
        chat.serve(url, "smol:latest", slots=4)
        await until(lambda: plane.heartbeats[-1].status is Health.HEALTHY)
        service = plane.heartbeats[-1].services[0]
        assert (service.name, service.status, service.url, service.slots) == ("chat", ServiceStatus.RUNNING, url, 4)
        await until(lambda: offered() == ("work", "chat"))
        assert queue.capabilities[-1].models == ("smol",)
        del chat.alive[url]
        await until(lambda: plane.heartbeats[-1].status is Health.DEGRADED)
        await until(lambda: offered() == ("work",))


@in_virtual_time
async def test_a_service_that_fails_a_job_is_looked_at_at_once(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    url = "http://127.0.0.1:9000"
    failed_s: list[float] = []

    async def die(*_: object) -> None:
        del chat.alive[url]
        failed_s.append(LoopClock().monotonic_s())
        raise UpstreamFailed("the connection was lost")

    chat = FakeConnector("chat", die, needs_service=True)
    chat.serve(url)
    async with running(plane, queue, tmp_path, connectors={"chat": chat}, attach=(("chat", url),)):
        await until(lambda: queue.capabilities and queue.capabilities[-1].services == ("chat",))
        await time_passes(3.0)  # in the middle between two looks
        queue.add(spec("a", service="chat"))
        await until(lambda: queue.capabilities[-1].services == ())
        assert LoopClock().monotonic_s() - failed_s[0] < 1.0


@in_virtual_time
async def test_an_unknown_connector_to_attach_is_a_mistake_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no connector 'paint'"):
        agent(FakePlane(), FakeQueue(), tmp_path, attach=(("paint", "http://127.0.0.1:1"),))


@in_virtual_time
async def test_services_at_usual_ports_are_found_when_they_come_and_their_going_is_no_fault(tmp_path: Path) -> None:
    plane = FakePlane()
    chat = FakeConnector("chat", needs_service=True)

    async def identify(url: str) -> Service | None:
        return chat.alive.get(url)

    async with running(
        plane,
        FakeQueue(),
        tmp_path,
        connectors={"chat": chat},
        identify=identify,
        usual_ports={"chat": 9000, "ours": 9001},
        ignored_ports=frozenset({9001}),
    ):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        chat.serve("http://127.0.0.1:9000", "smol")
        chat.serve("http://127.0.0.1:9001", "smol")  # the fleet's own gateway, say
        await until(lambda: plane.heartbeats[-1].services)
        await time_passes(100)
        assert [service.url for service in plane.heartbeats[-1].services] == ["http://127.0.0.1:9000"]
        chat.alive.clear()
        await until(lambda: plane.heartbeats[-1].services[0].status is ServiceStatus.STOPPED)
        assert plane.heartbeats[-1].status is Health.HEALTHY
        chat.serve("http://127.0.0.1:9000", "smol")
        await until(lambda: plane.heartbeats[-1].services[0].status is ServiceStatus.RUNNING)
    assert plane.kinds().count("service_attached") == 2


@in_virtual_time
async def test_a_service_on_loopback_is_shown_to_others_only_under_an_address_that_reaches_it(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    chat = FakeConnector("chat", needs_service=True)
    for port in (9000, 9001):
        chat.serve(f"http://127.0.0.1:{port}", "smol")
    chat.serve("http://10.0.0.7:9000", "smol")
    named = (("chat", "http://127.0.0.1:9000"), ("chat", "http://127.0.0.1:9001"))
    async with running(plane, queue, tmp_path, connectors={"chat": chat}, attach=named, address="10.0.0.7"):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].phase is Phase.READY)
        first, second = plane.heartbeats[-1].services
        queue.add(spec("a", service="chat"))
        await until(queue.ended)  # our own worker reaches both
    assert (first.name, first.url, first.error) == ("chat", "http://10.0.0.7:9000", None)
    assert (second.name, second.url) == ("chat-9001", None)
    assert second.error == "others cannot reach it: let it listen on 10.0.0.7"


# --- commands, drains, rivals ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_drain_by_command_holds_the_workers_until_a_resume(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    async with running(plane, queue, tmp_path):
        plane.reply = HeartbeatReply(next_heartbeat_ms=1000, draining=True)
        plane.order("drain", 1)
        await until(lambda: plane.ends(1))
        await until(lambda: plane.heartbeats[-1].draining)
        assert plane.heartbeats[-1].workers[0].status is WorkerStatus.DRAINING
        queue.add(spec("a"))
        await time_passes(60)
        assert not queue.ended()
        plane.reply = HeartbeatReply(next_heartbeat_ms=1000)
        plane.order("resume", 2)
        await until(queue.ended)


@in_virtual_time
async def test_a_drain_by_the_control_plane_holds_the_workers_as_long_as_it_lasts(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    plane.reply = HeartbeatReply(next_heartbeat_ms=1000, draining=True)
    async with running(plane, queue, tmp_path):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].workers)
        await time_passes(2)
        queue.add(spec("a"))
        await time_passes(60)
        assert not queue.ended()
        plane.reply = HeartbeatReply(next_heartbeat_ms=1000)
        await until(queue.ended)


@in_virtual_time
async def test_an_agent_whose_node_id_is_taken_claims_nothing(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    plane.reply = HeartbeatReply(next_heartbeat_ms=1000, superseded=True)
    plane.order("shutdown")
    async with running(plane, queue, tmp_path):
        await until(lambda: plane.heartbeats and plane.heartbeats[-1].workers)
        await time_passes(2)
        queue.add(spec("a"))
        await time_passes(60)
        assert not queue.ended()
        assert not plane.polls  # the command is meant for the other one
        plane.waiting.clear()
        plane.reply = HeartbeatReply(next_heartbeat_ms=1000)
        await until(queue.ended)


@in_virtual_time
async def test_a_status_command_is_answered(tmp_path: Path) -> None:
    plane = FakePlane()
    async with running(plane, FakeQueue(), tmp_path):
        plane.order("status")
        await until(plane.ends)
    (told,) = plane.ends()
    assert told.result["phase"] == "ready"
    assert list(told.result["workers"]) == ["gpu-1-worker-0"]


@in_virtual_time
async def test_a_shutdown_command_stops_the_node_politely(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue([spec("a", payload=0.5)])
    connectors = {"work": FakeConnector(behaviour=take_payload_seconds)}
    node = agent(plane, queue, tmp_path, connectors=connectors)
    plane.order("shutdown", reason="night")
    async with asyncio.timeout(30):
        await node.run_until_stopped()
    assert queue.ended() == ["a"]
    assert len(queue.closed) == 1
    assert [(gone.node_id, gone.reason) for gone in plane.gone] == [("gpu-1", "night")]
    assert plane.kinds()[-1] == "node_stopping"
    assert [told.result for told in plane.ends()] == [{"reason": "night"}]


# --- going away ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_stop_tells_so_then_deregisters(tmp_path: Path) -> None:
    plane = FakePlane()
    async with running(plane, FakeQueue(), tmp_path):
        await until(lambda: plane.heartbeats)
    assert plane.heartbeats[-1].phase is Phase.STOPPING
    assert plane.heartbeats[-1].workers[0].status is WorkerStatus.STOPPED
    assert plane.gone[0].boot_id == plane.heartbeats[-1].boot_id
    assert plane.kinds()[-1] == "node_stopping"


@in_virtual_time
async def test_a_stop_with_nobody_to_tell_ends_soon(tmp_path: Path) -> None:
    plane = FakePlane()

    async def hang(_: str) -> None:
        await asyncio.Event().wait()

    node = agent(plane, FakeQueue(), tmp_path)
    await node.start()
    plane.trouble = hang
    async with asyncio.timeout(10):
        await node.stop()


@in_virtual_time
async def test_a_stop_while_coming_up_stops_what_came_up(tmp_path: Path) -> None:
    plane, queue = FakePlane(), FakeQueue()
    hung = asyncio.Event()

    async def identify(_: str) -> Service | None:
        hung.set()
        await asyncio.Event().wait()
        return None

    node = agent(plane, queue, tmp_path, identify=identify, usual_ports={"chat": 9000})
    starting = asyncio.create_task(node.start())
    await hung.wait()
    async with asyncio.timeout(10):
        await node.stop()
    await starting
    assert len(plane.gone) == 1


@in_virtual_time
async def test_a_start_that_is_given_up_leaves_nothing_running(tmp_path: Path) -> None:
    hung = asyncio.Event()

    async def identify(_: str) -> Service | None:
        hung.set()
        await asyncio.Event().wait()
        return None

    node = agent(FakePlane(), FakeQueue(), tmp_path, identify=identify, usual_ports={"chat": 9000})
    starting = asyncio.create_task(node.run_until_stopped())
    await hung.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_starting_and_stopping_twice_does_nothing_more(tmp_path: Path) -> None:
    plane = FakePlane()
    node = agent(plane, FakeQueue(), tmp_path)
    await node.stop()
    await node.start()
    await node.start()
    await node.stop()
    await node.stop()
    assert len(plane.gone) == 1
    assert plane.kinds().count("startup_complete") == 1


@in_virtual_time
async def test_a_lost_gpu_holds_its_own_worker_and_the_node_says_why(tmp_path: Path) -> None:
    plane, gpus = FakePlane(), FakeGpus(gpu(0), gpu(1))

    def statuses() -> list[WorkerStatus]:
        return [worker.status for worker in plane.heartbeats[-1].workers] if plane.heartbeats else []

    queue = FakeQueue()
    async with running(plane, queue, tmp_path, gpus=gpus):
        await until(lambda: statuses() == [WorkerStatus.IDLE, WorkerStatus.IDLE])
        gpus.gpus = (gpu(0), gpu(1, fault=GpuFault.LOST))
        await until(lambda: statuses() == [WorkerStatus.IDLE, WorkerStatus.DRAINING])
        beat = plane.heartbeats[-1]
        assert (beat.status, beat.reason) == (Health.DEGRADED, "GPU 1 is out of service: it fell off the bus")
        assert [each.out_of_service for each in beat.gpus] == [None, "it fell off the bus"]
        gpus.gpus = (gpu(0), gpu(1))
        await until(lambda: statuses() == [WorkerStatus.IDLE, WorkerStatus.IDLE])
        await until(lambda: plane.heartbeats[-1].status is Health.HEALTHY)
    assert [told["gpu"] for told in plane.told("gpu_out_of_service") + plane.told("gpu_in_service")] == [1, 1]
