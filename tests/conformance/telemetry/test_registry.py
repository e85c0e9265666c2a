"""The registry of hives and its scheduling queries, with the document's own cases."""

import asyncio
import json
import threading
import urllib.request
from typing import Any

import pytest

from tests.conformance.telemetry.conftest import Queen, heartbeat_of, worker_of


async def test_update_workers_stores_correctly(queen: Queen) -> None:
    await queen.hear(
        "hive-1",
        worker_of(1001, instance="8080", model="llama-3.2-1b"),
        worker_of(1002, instance="8081", util=85.0, vram_mb=8192, model="llama-3.2-3b"),
    )
    first, second = await queen.workers()
    assert [first["pid"], second["pid"]] == [1001, 1002]
    assert (first["worker_id"], first["status"]) == ("hive-1-worker-0", "idle")
    assert (second["status"], second["gpu_utilization_percent"]) == ("busy", 85.0)
    assert second["capabilities"] == {"services": ["llm"], "models": ["llama-3.2-3b"]}
    (node,) = await queen.get("/api/v1/nodes")
    assert (node["id"], node["link"], node["health_status"], node["phase"]) == ("hive-1", "hive", "healthy", "ready")
    assert [service["name"] for service in node["services"]] == ["llm:8080", "llm:8081"]
    assert node["loaded_models"] == ["llama-3.2-1b", "llama-3.2-3b"]


async def test_figures_that_move_are_no_facts(queen: Queen) -> None:
    """However often a worker's GPU goes from idle to busy and back, the log of facts does not grow by it."""
    await queen.hear("hive-1", worker_of(1, model="m"))
    before = await queen.plane.recorded()
    for util in (50.0, 0.0, 70.0):
        await queen.hear("hive-1", worker_of(1, util=util, model="m") | {"uptime_s": 100 + util})
    assert await queen.plane.recorded() == before


async def test_get_workers_returns_stored(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(2001))
    assert await queen.pids(node_id="hive-1") == [2001]
    assert await queen.pids(node_id="nonexistent") == []
    status, body = await queen.call("GET", "/api/v1/nodes/nonexistent")
    assert (status, body["code"]) == (404, "node_not_found")


async def test_get_all_workers_flattens(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(3001, instance="8080"), worker_of(3002, instance="8081"))
    await queen.hear("hive-2", worker_of(4001, "vllm", "9000"))
    assert await queen.pids() == [3001, 3002, 4001]


async def test_update_workers_replaces_existing(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(5001, instance="8080"))
    await queen.hear("hive-1", worker_of(5002, instance="8081"), worker_of(5003, instance="8082"))
    assert await queen.pids() == [5002, 5003]


async def test_find_idle_workers_filters(queen: Queen) -> None:
    await queen.hear(
        "hive-1",
        worker_of(6001, instance="8080"),
        worker_of(6002, instance="8081", util=85.0, vram_mb=8192),
        worker_of(6003, instance="8082", vram_mb=4096),
    )
    assert await queen.pids(idle="true") == [6001, 6003]


@pytest.mark.parametrize("unknown", [{"gpu_util_pct": None}, {"gpu_known": False}, {"total_vram_mb": 0}])
async def test_a_worker_whose_gpu_is_unknown_is_not_idle(queen: Queen, unknown: dict[str, Any]) -> None:
    await queen.hear("hive-1", worker_of(6001) | unknown)
    assert await queen.pids() == [6001]
    assert await queen.pids(idle="true") == []


async def test_find_workers_with_model_matches(queen: Queen) -> None:
    await queen.hear(
        "hive-1",
        worker_of(7001, instance="8080", model="llama-3.2-1b"),
        worker_of(7002, instance="8081", model="llama-3.2-3b"),
        worker_of(7003, instance="8082", model="llama-3.2-1b"),
        worker_of(7004, instance="8083"),
    )
    assert await queen.pids(model="llama-3.2-1b") == [7001, 7003]
    assert await queen.pids(model="llama-3.2-3b") == [7002]
    assert await queen.pids(model="nonexistent") == []


async def test_find_workers_with_capacity_checks_vram(queen: Queen) -> None:
    used = {8001: 0, 8002: 8192, 8003: 16_384, 8004: 20_480}
    await queen.hear("hive-1", *(worker_of(pid, instance=str(pid), vram_mb=mb) for pid, mb in used.items()))
    assert await queen.pids(free_vram_mb=4096) == [8001, 8002, 8003]
    assert await queen.pids(free_vram_mb=8192) == [8001, 8002]


async def test_lesson_capacity_uses_the_reported_total_of_each_gpu(queen: Queen) -> None:
    """Issue 5: a card of 48 GB takes 30, one of 8 GB does not take 10, and of an unknown one nobody knows."""
    sizes = {1: 49_152, 2: 8192, 3: None}
    workers = [worker_of(pid, instance=str(pid)) | {"total_vram_mb": total} for pid, total in sizes.items()]
    await queen.hear("hive-1", *workers)
    assert await queen.pids(free_vram_mb=30_000) == [1]
    assert await queen.pids(free_vram_mb=4096) == [1, 2]


async def test_update_workers_thread_safe(queen: Queen) -> None:
    """Ten at once, each with a hive of its own: ten workers."""
    every = [heartbeat_of(f"hive-{number}", worker_of(100 * number + 1)) for number in range(10)]
    statuses = await asyncio.to_thread(_posted_by_threads, queen.url, every)
    assert statuses == [200] * 10
    assert len(await queen.pids()) == 10


async def test_concurrent_read_write(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(9001))

    async def write() -> None:
        for number in range(30):
            await queen.hear("hive-1", worker_of(9001 + number))

    async def read() -> None:
        for _ in range(10):
            assert len(await queen.workers()) == 1
            await queen.get("/api/v1/workers?idle=true")

    async with asyncio.timeout(20):
        await asyncio.gather(write(), *(read() for _ in range(5)))


async def test_empty_workers_array(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(1))
    await queen.hear("hive-1")
    assert await queen.workers() == []
    assert [node["id"] for node in await queen.get("/api/v1/nodes")] == ["hive-1"]


async def test_multiple_hives_isolated(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(10_001))
    await queen.hear("hive-2", worker_of(10_002, "vllm", "9000"))
    assert await queen.pids(node_id="hive-1") == [10_001]
    assert await queen.pids(node_id="hive-2") == [10_002]


async def test_scheduling_on_empty_registry(queen: Queen) -> None:
    for query in ("idle=true", "model=test", "free_vram_mb=4096"):
        assert await queen.get(f"/api/v1/workers?{query}") == []


# --- what does not fit, and time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"hive": None}, "hive"),
        ({"hive": {"hostname": "h"}}, "hive.id"),
        ({"hive": {"id": "unknown"}}, "hive.id"),
        ({"hive": {"id": "h", "health_status": "sleepy"}}, "hive.health_status"),
        ({"hive": {"id": "h", "operational_status": "gone"}}, "hive.operational_status"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"workers": {}}, "workers"),
        ({"workers": [{"pid": "x"}]}, "workers[0].pid"),
        ({"workers": [{"pid": 1, "group": "llm"}]}, "workers[0].instance"),
        ({"workers": [worker_of(1) | {"vram_mb": -1}]}, "workers[0].vram_mb"),
        ({"workers": [worker_of(1) | {"group": "a b"}]}, "workers[0].group"),
        ({"workers": [worker_of(1), worker_of(2)]}, "workers[1].instance"),
    ],
)
async def test_a_malformed_heartbeat_is_refused_by_field_and_nothing_is_stored(
    queen: Queen, broken: dict[str, Any], field: str
) -> None:
    status, body = await queen.call("POST", "/v1/hive-heartbeat", heartbeat_of("hive-1") | broken)
    assert (status, body["field"]) == (400, field)
    assert await queen.get("/api/v1/nodes") == []


async def test_worker_dies_removed_from_registry(queen: Queen) -> None:
    """At the next tick; the others keep their names."""
    await queen.hear("hive-1", *(worker_of(pid, instance=str(pid)) for pid in (1, 2, 3)))
    await queen.hear("hive-1", *(worker_of(pid, instance=str(pid)) for pid in (2, 3)))
    assert {w["pid"]: w["worker_id"] for w in await queen.workers()} == {2: "hive-1-worker-1", 3: "hive-1-worker-2"}
    await queen.hear("hive-1", *(worker_of(pid, instance=str(pid)) for pid in (2, 3, 4)))
    assert {w["pid"]: w["index"] for w in await queen.workers()} == {2: 1, 3: 2, 4: 0}


async def test_hive_restart_clears_workers(queen: Queen) -> None:
    """A hive that stopped is stale in time, and none of its workers is found any more, by whatever query."""
    await queen.hear("hive-1", worker_of(1, model="m"))
    assert await queen.pids(model="m") == [1]
    queen.plane.clock.advance(95)
    queen.plane.fleet.tick()
    for query in ({"idle": "true"}, {"model": "m"}, {"free_vram_mb": 1}, {"status": "idle"}):
        assert await queen.pids(**query) == []
    await queen.hear("hive-1", worker_of(7, model="m"))
    assert await queen.pids(model="m", idle="true") == [7]


async def test_a_hive_and_an_agent_of_one_name_are_one_record(queen: Queen) -> None:
    await queen.hear("n1", worker_of(1))
    await queen.plane.heartbeat("n1")
    assert [(node["id"], node["link"]) for node in await queen.get("/api/v1/nodes")] == [("n1", "http")]
    status, body = await queen.call("POST", "/v1/hive-heartbeat", heartbeat_of("n1", worker_of(1)))
    assert (status, body["field"]) == (409, "hive.id")
    queen.plane.clock.advance(200)
    queen.plane.fleet.tick()
    await queen.hear("n1", worker_of(2))
    assert [(node["id"], node["link"]) for node in await queen.get("/api/v1/nodes")] == [("n1", "hive")]


def _posted_by_threads(url: str, bodies: list[Any]) -> list[int]:
    statuses: list[int] = []

    def post(body: Any) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/hive-heartbeat", json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            statuses.append(answer.status)

    threads = [threading.Thread(target=post, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses
