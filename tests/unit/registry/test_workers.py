"""Which workers are idle, have a model, have room: of nodes with agents. Those of hives are in tests/conformance."""

from typing import Any

import pytest
from msgspec.structs import replace

from muster.domain.gpu import Gpu
from muster.domain.node import Health, Node
from muster.domain.service import ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.registry.workers import find
from tests.unit.registry.makers import NODE, facts, service, worker

GPU = Gpu(index=0, memory_total_mb=24_564, memory_used_mb=4_564, utilization_percent=0.0)


def node(*gpus: Gpu, status: WorkerStatus = WorkerStatus.IDLE, **more: Any) -> Node:
    workers = tuple(worker(gpu.index, status, gpu_index=gpu.index) for gpu in gpus) or (worker(0, status),)
    return Node(facts=facts(), health=Health.HEALTHY, workers=workers, gpus=gpus, **more)


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
