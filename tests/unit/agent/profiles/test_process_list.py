"""The process list and the simulation's health, asked over HTTP."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.agent.profiles.process_list import ProcessList
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import UpstreamFailed
from muster.ids import NodeId, worker_id


def worker(status: WorkerStatus, *connectors: str) -> Worker:
    return Worker(worker_id=worker_id(NodeId("m"), 0), index=0, status=status, connectors=connectors)


@asynccontextmanager
async def listed(services: list[Service], workers: list[Worker]) -> AsyncIterator[ProcessList]:
    processes = ProcessList(lambda: services, lambda: workers, list_port=0, simulation_port=0)
    await processes.start()
    try:
        yield processes
    finally:
        await processes.stop()


async def ask(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.json()


async def test_e5_every_service_is_listed_in_the_words_of_process_managers() -> None:
    services = [
        Service(name=status.value, connector="comfyui", status=status, pid=7, restarts=2) for status in ServiceStatus
    ]
    async with listed(services, []) as processes:
        status, found = await ask(processes.urls["process_list"])
    assert status == 200
    assert {process["name"]: process["status"] for process in found} == {
        "orchestrator": "online",
        "starting": "launching",
        "running": "online",
        "unhealthy": "errored",
        "stopping": "stopping",
        "stopped": "stopped",
        "failed": "errored",
    }
    assert [process["pm_id"] for process in found] == list(range(7))
    assert found[1]["pm2_env"] | {"pm_uptime": 0} == {"status": "launching", "pm_uptime": 0, "restart_time": 2}


@pytest.mark.parametrize(
    ("workers", "status"),
    [
        ([worker(WorkerStatus.BUSY, "simulation")], 200),
        ([worker(WorkerStatus.STOPPED, "simulation")], 503),
        ([worker(WorkerStatus.IDLE, "comfyui")], 503),
        ([], 503),
    ],
)
async def test_7_3_the_simulation_is_healthy_while_a_worker_takes_its_jobs(workers: list[Worker], status: int) -> None:
    async with listed([], workers) as processes:
        assert (await ask(processes.urls["simulation"]))[0] == status


async def test_a_port_that_is_held_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        processes = ProcessList(list, list, list_port=port, simulation_port=0)
        with pytest.raises(UpstreamFailed, match=f"port {port} is held by pid"):
            await processes.start()
        await processes.stop()
