"""Which workers are idle, have a model, have room: of nodes with agents and of hives."""

from typing import Any

import pytest
from msgspec.structs import replace

from muster.domain.gpu import Gpu
from muster.domain.node import Health, Node
from muster.domain.process import ProcessFigures
from muster.domain.service import ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.registry.workers import FleetWorker, find
from tests.unit.registry.makers import NODE, facts, service, worker

MB = 1024 * 1024
GPU = Gpu(index=0, memory_total_mb=24_564, memory_used_mb=4_564, utilization_percent=0.0)


def node(*gpus: Gpu, status: WorkerStatus = WorkerStatus.IDLE, **more: Any) -> Node:
    workers = tuple(worker(gpu.index, status, gpu_index=gpu.index) for gpu in gpus) or (worker(0, status),)
    return Node(facts=facts(), health=Health.HEALTHY, workers=workers, gpus=gpus, **more)


def hive(*used_percent: float | None, own: str = "llm:0", **memory: int | None) -> Node:
    """One worker that is a single process: its GPU is known by what it tells itself, if it tells anything."""
    processes = tuple(
        ProcessFigures(name="llm:0", group="llm", pid=7, gpu_utilization_percent=percent) for percent in used_percent
    )
    services = (
        service("llm:0", ServiceStatus.RUNNING, "small:latest", **memory),
        service("llm:1", ServiceStatus.RUNNING, "big"),
    )
    return Node(
        facts=facts(),
        health=Health.HEALTHY,
        workers=(worker(0, service=own),),
        services=services,
        processes=processes,
    )


def only(fleet: Node) -> FleetWorker:
    (found,) = find([fleet])
    return found


def ids(*nodes: Node, **wanted: Any) -> list[str]:
    return [found.worker.worker_id.removeprefix(f"{NODE}-worker-") for found in find(nodes, **wanted)]


@pytest.mark.parametrize(
    ("gpu", "status", "idle"),
    [
        (GPU, WorkerStatus.IDLE, True),
        (GPU, WorkerStatus.BUSY, False),
        (GPU, WorkerStatus.DRAINING, False),
        (replace(GPU, utilization_percent=3.0), WorkerStatus.IDLE, False),
        (replace(GPU, utilization_percent=None), WorkerStatus.IDLE, False),
        (replace(GPU, out_of_service="too hot"), WorkerStatus.IDLE, False),
        (Gpu(index=0, simulated=True), WorkerStatus.IDLE, True),
    ],
    ids=["idle", "busy", "draining", "used", "unknown", "unfit", "simulated"],
)
def test_idle_is_who_runs_nothing_on_a_gpu_that_is_known_to_do_nothing(
    gpu: Gpu, status: WorkerStatus, *, idle: bool
) -> None:
    assert ids(node(gpu, status=status), idle=True) == (["0"] if idle else [])


def test_without_a_gpu_nothing_is_unknown() -> None:
    assert ids(node(), idle=True) == ["0"]
    assert ids(node(), free_memory_mb=0) == []


def test_room_is_what_each_gpu_has_free_of_what_it_reports() -> None:
    gpus = (
        GPU,
        replace(GPU, index=1, memory_total_mb=81_559),
        replace(GPU, index=2, memory_used_mb=None),
        replace(GPU, index=3, out_of_service="lost"),
    )
    assert ids(node(*gpus), free_memory_mb=19_999) == ["0", "1"]
    assert ids(node(*gpus), free_memory_mb=20_000) == ["1"]


def test_a_model_is_had_by_the_workers_of_its_gpu_or_by_all_of_the_node() -> None:
    services = (
        service("bound", ServiceStatus.RUNNING, "big:latest", gpu_index=1),
        service("free", ServiceStatus.RUNNING, "small"),
        service("dead", ServiceStatus.FAILED, "gone"),
    )
    fleet = node(GPU, replace(GPU, index=1), services=services)
    assert ids(fleet, model="big") == ["1"]
    assert ids(fleet, model="small:latest") == ["0", "1"]
    assert ids(fleet, model="gone") == []


@pytest.mark.parametrize("lost", [{"health": Health.STALE}, {"health": Health.DEAD}, {"connected": False}])
def test_a_node_that_is_not_heard_has_no_workers(lost: dict[str, Any]) -> None:
    assert ids(node(GPU)) == ["0"]
    assert ids(replace(node(GPU), **lost)) == []


def test_all_that_is_asked_for_must_hold() -> None:
    fleet = node(GPU, services=(service("a", ServiceStatus.RUNNING, "m"),))
    assert ids(fleet, idle=True, model="m", free_memory_mb=1000) == ["0"]
    assert ids(fleet, idle=True, model="m", free_memory_mb=30_000) == []


@pytest.mark.parametrize(
    ("fleet", "status", "idle"),
    [
        (hive(0.0), WorkerStatus.IDLE, True),
        (hive(0.5), WorkerStatus.BUSY, False),
        (hive(None), WorkerStatus.IDLE, False),
        (hive(), WorkerStatus.IDLE, False),
    ],
    ids=["idle", "used", "unknown", "without figures"],
)
def test_of_a_worker_that_is_one_process_its_gpu_tells_whether_it_works(
    fleet: Node, status: WorkerStatus, *, idle: bool
) -> None:
    assert only(fleet).status is status
    assert ids(fleet, idle=True) == (["0"] if idle else [])


def test_of_a_worker_of_an_agent_its_own_word_tells_whether_it_works() -> None:
    used = replace(GPU, utilization_percent=85.0)
    assert only(node(used)).status is WorkerStatus.IDLE, "somebody uses its GPU, and it is not this worker"
    assert only(node(GPU, status=WorkerStatus.BUSY)).status is WorkerStatus.BUSY


def test_a_worker_that_is_one_process_has_the_models_of_that_one_alone() -> None:
    assert ids(hive(0.0), model="small") == ["0"]
    assert ids(hive(0.0), model="big") == []


def test_a_worker_that_is_one_process_has_the_room_that_it_tells_in_whole_megabytes() -> None:
    fleet = hive(0.0, memory_total_bytes=24_564 * MB, memory_free_bytes=1_001 * MB - 1)
    assert (only(fleet).memory_total_mb, only(fleet).memory_free_mb) == (24_564, 1_000)
    assert ids(fleet, free_memory_mb=999) == ["0"]
    assert ids(fleet, free_memory_mb=1_000) == []
    assert (only(hive(0.0)).memory_total_mb, only(hive(0.0)).memory_free_mb) == (None, None)
    assert ids(hive(0.0), free_memory_mb=0) == []


def test_a_worker_whose_process_is_not_told_is_there_with_what_its_node_offers() -> None:
    found = only(hive(0.0, own="llm:9"))
    assert (found.on_gpu, found.memory_total_mb, found.models) == (False, None, ("small:latest", "big"))
