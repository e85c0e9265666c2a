"""An agent and a control plane over HTTP: the real link, the real rules, a store in memory."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.agent.agent import Agent, Backends, Devices
from muster.agent.config import AgentConfig
from muster.agent.services.health import HttpHealth
from muster.commands.book import CommandBook
from muster.connectors.simulation import SimulationConnector
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.ingest import Ingest
from muster.control.jobs.service import JobService, JobStores
from muster.control.recorder import Recorder
from muster.control.sweep import Sweep
from muster.domain.gpu import Gpu
from muster.domain.job import TERMINAL, Job, JobSpec, JobStatus
from muster.domain.node import Health, Phase, Resources
from muster.domain.service import Service
from muster.errors import ModelNotFound
from muster.ids import JobId, NodeId
from muster.jobs.retry import RetryPolicy
from muster.links.http.agent_side import HttpLink
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.commands import MemoryCommands
from muster.stores.memory.jobs import MemoryJobs
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.nodes import MemoryNodes
from muster.system import SystemClock
from tests.contract.links.served import Served
from tests.integration.agent.services import WebConnector, web
from tests.waiting import eventually

NODE = NodeId("gpu-1")
POLICY = RetryPolicy(base_s=0.01, max_s=0.05)


class Plane:
    """A control plane that can be killed and started anew on the same store."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.log = MemoryLog(1000)
        self.bus = MemoryBus()
        self.nodes = MemoryNodes()
        self.store = MemoryJobs(
            self.clock, self.log, self.bus, avoid_s=1.0, class_keep_s=60.0, result_bytes_max=1_000_000
        )  # fmt: skip
        self.port = 0
        self._parts: list[Any] = []

    async def start(self) -> None:
        rng = random.Random(1)
        recorder = Recorder(self.nodes, self.log)
        self.fleet = Fleet(NodeBook(Limits()), recorder, self.clock)
        self.fleet.load(await self.nodes.load())
        self.jobs = JobService(
            JobStores(queue=self.store, index=self.store, upkeep=self.store, lines=self.store),
            self.bus,
            self.clock,
            rng,
            lease_s=3.0,
            retry_policy=POLICY,
            payload_bytes_max=1_000_000,
            payload_checks={},
        )
        sweep = Sweep(
            self.fleet,
            self.store,
            self.store,
            self.clock,
            rng,
            every_s=0.1,
            retry_policy=POLICY,
            retention_s=60.0,
            ended_max=1000,
        )
        self.commands = CommandService(
            CommandBook(), MemoryCommands(100), self.bus, self.fleet, recorder, self.clock, rng
        )
        served = Served(Ingest(self.fleet, self.commands, recorder, self.clock, link="http"), self.jobs)
        served.port = self.port
        self._parts = [recorder, sweep, served, self.jobs, self.commands]  # who waits is let go before the door shuts
        for part in self._parts:
            await part.start()
        self.port = served.port

    async def stop(self) -> None:
        for part in reversed(self._parts):
            await part.stop()

    async def submit(self, *payloads: Any, service: str = "simulation", **more: Any) -> list[JobId]:
        submitted = await self.jobs.submit(
            [JobSpec(job_id=JobId(""), service_required=service, payload=payload, **more) for payload in payloads]
        )
        return [each.job_id for each in submitted]

    async def ended(self, job_ids: list[JobId], timeout_s: float = 20.0) -> list[Job]:
        async def all_ended() -> list[Job]:
            jobs = await self.jobs.get_many(job_ids)
            return jobs if all(job.state.status in TERMINAL for job in jobs) else []

        return await eventually(all_ended, timeout_s)


class NoGpus:
    async def read(self) -> tuple[Gpu, ...]:
        return ()


class Host:
    def read(self) -> Resources:
        return Resources(memory_total_mb=8_000)


async def nothing_there(_: str) -> Service | None:
    return None


async def no_model(name: str) -> Path:
    raise ModelNotFound(f"no model {name!r}")


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane()
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def make_agent(plane: Plane, session: aiohttp.ClientSession, data_dir: Path, **config: Any) -> Agent:
    link = HttpLink(f"http://127.0.0.1:{plane.port}", session)
    rng = random.Random(2)
    return Agent(
        AgentConfig(node_id=NODE, heartbeat_interval_s=0.2, control_plane=f"http://127.0.0.1:{plane.port}", **config),
        link,
        link,
        Devices(gpus=NoGpus(), simulated_gpus=lambda _: NoGpus(), host=Host()),
        Backends(
            connectors={"simulation": SimulationConnector(rng), "web": WebConnector(session)},
            identify=nothing_there,
            usual_ports={},
            check_health=HttpHealth(session).check,
            fetch_model=no_model,
        ),
        SystemClock(),
        rng,
        data_dir,
    )


@pytest.fixture
async def agent(plane: Plane, session: aiohttp.ClientSession, tmp_path: Path) -> AsyncIterator[Agent]:
    agent = make_agent(plane, session, tmp_path, services=(web(),), worker_slots=4)
    await agent.start()
    yield agent
    await agent.stop()


def is_ready(plane: Plane) -> bool:
    node = plane.fleet.book.get(NODE)
    return node is not None and node.phase is Phase.READY and node.health is Health.HEALTHY


async def test_a_node_joins_works_and_leaves(plane: Plane, agent: Agent) -> None:
    await eventually(lambda: is_ready(plane))
    job_ids = await plane.submit({"duration_ms": 5, "result": {"n": 1}}, {"duration_ms": 5, "fail_rate": 1})
    job_ids += await plane.submit("/", service="web")
    done, failed, fetched = await plane.ended(job_ids)
    assert (done.state.status, failed.state.status) == (JobStatus.COMPLETED, JobStatus.FAILED)
    assert failed.state.attempt == 4  # the first and three retries
    assert fetched.state.status is JobStatus.COMPLETED
    (service,) = plane.fleet.node(NODE).services
    assert (service.name, service.managed) == ("web", True)
    await agent.stop()
    assert plane.fleet.book.get(NODE) is None


async def test_a_restarted_control_plane_finds_its_nodes_and_jobs_again_with_nothing_to_restart(
    plane: Plane, agent: Agent
) -> None:
    await eventually(lambda: is_ready(plane))
    job_ids = await plane.submit(*[{"duration_ms": 1500}] * 4, *[{"duration_ms": 10}] * 20)
    await eventually(lambda: (node := plane.fleet.book.get(NODE)) and node.workers[0].current_jobs)
    await plane.stop()
    plane.nodes = MemoryNodes()  # not even the node's record is left
    await plane.start()
    jobs = await plane.ended(job_ids)
    assert {job.state.status for job in jobs} == {JobStatus.COMPLETED}
    assert [job.state.attempt for job in jobs[:4]] == [1, 1, 1, 1]  # their leases outlived the cut
    await eventually(lambda: is_ready(plane), 20)


async def test_a_cancelled_job_is_stopped_at_the_worker(plane: Plane, agent: Agent) -> None:
    (job_id,) = await plane.submit({"duration_ms": 600_000})
    await eventually(lambda: (node := plane.fleet.book.get(NODE)) and node.workers and node.workers[0].current_jobs)
    await plane.jobs.cancel(job_id)
    await eventually(lambda: (node := plane.fleet.book.get(NODE)) and not node.workers[0].current_jobs)


async def test_a_stopped_agent_gives_its_jobs_back_uncounted(
    plane: Plane, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    agent = make_agent(plane, session, tmp_path, stop_timeout_s=0.05)
    await agent.start()
    (job_id,) = await plane.submit({"duration_ms": 600_000})
    await eventually(lambda: (node := plane.fleet.book.get(NODE)) and node.workers and node.workers[0].current_jobs)
    await agent.stop()
    job = await plane.jobs.get(job_id)
    assert (job.state.retry_count, job.state.worker_id) == (0, None)
    assert job.state.status in {JobStatus.PENDING, JobStatus.UNWORKABLE}


async def test_many_small_jobs_go_through_quickly_and_each_once(plane: Plane, agent: Agent) -> None:
    job_ids = await plane.submit(*[{"duration_ms": 0, "steps": 1}] * 500)
    jobs = await plane.ended(job_ids, 60)
    assert {(job.state.status, job.state.attempt) for job in jobs} == {(JobStatus.COMPLETED, 1)}
