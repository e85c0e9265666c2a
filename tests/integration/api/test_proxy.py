"""What a proxy tells of itself: the fleet, the best worker, and what can be done with it."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from muster.api import proxy
from muster.domain.gpu import Gpu
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from tests.integration.api.conftest import Served, serving

OLLAMA = Service(
    name="ollama",
    connector="ollama",
    status=ServiceStatus.RUNNING,
    url="http://127.0.0.1:12345",
    dialects=(Dialect.OLLAMA, Dialect.OPENAI),
    models=(Model(name="m"),),
    slots=2,
    slots_busy=0,
)


async def gpu_worker(served: Served, node_id: str, *services: Service, **facts: Any) -> None:
    known = NodeFacts(node_id=NodeId(node_id), node_type="gpu-worker", address=f"{node_id}.example", **facts)
    await served.plane.heartbeat(node_id, facts=known, gpus=(Gpu(index=0),), services=services)


async def get(served: Served, path: str) -> Any:
    async with served.client.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def post(served: Served, path: str, body: Any = None) -> tuple[int, Any]:
    async with served.client.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def test_an_empty_fleet_has_no_best_worker(served: Served) -> None:
    fleet = await get(served, "/_/fleet")
    assert fleet == {"enabled": True, "total_nodes": 0, "gpu_workers": 0, "nodes": [], "best_worker": None}
    assert (await get(served, "/_/status"))["remote"] == {"url": None, "node_id": None, "healthy": False}


async def test_the_best_worker_is_the_one_that_placement_would_take(served: Served) -> None:
    await gpu_worker(served, "a", msgspec.structs.replace(OLLAMA, slots_busy=1), nebula_ip="10.42.0.1")
    await gpu_worker(served, "b", OLLAMA, nebula_ip="10.42.0.2")
    await served.plane.heartbeat("c")  # no GPU
    fleet = await get(served, "/_/fleet")
    assert (fleet["total_nodes"], fleet["gpu_workers"]) == (3, 2)
    assert fleet["best_worker"] == {
        "id": "b",
        "nebula_ip": "10.42.0.2",
        "health": "healthy",
        "ollama_url": "http://10.42.0.2:12345",  # the port is that of its own Ollama
    }
    assert (await get(served, "/_/status"))["remote"]["url"] == "http://10.42.0.2:12345"


async def test_without_an_ollama_the_usual_port_is_named_and_never_this_host(served: Served) -> None:
    await gpu_worker(served, "a")
    assert (await get(served, "/_/fleet"))["best_worker"]["ollama_url"] == "http://a.example:11434"


async def test_a_worker_whose_ollama_is_down_is_not_the_best(served: Served) -> None:
    await gpu_worker(served, "a", msgspec.structs.replace(OLLAMA, status=ServiceStatus.STOPPED))
    assert (await get(served, "/_/fleet"))["best_worker"] is None


async def test_pause_takes_the_best_worker_out_and_resume_takes_it_back(served: Served) -> None:
    await gpu_worker(served, "a", OLLAMA)
    await gpu_worker(served, "b", OLLAMA)
    assert await post(served, "/_/pause") == (200, {"success": True, "paused": True, "nodes": ["a"]})
    status = await get(served, "/_/status")
    assert (status["remote"]["node_id"], status["paused"]) == ("b", ["a"])
    assert await post(served, "/_/pause?node=b") == (200, {"success": True, "paused": True, "nodes": ["b"]})
    assert (await post(served, "/_/pause"))[0] == 503  # nobody is left
    assert await post(served, "/_/resume") == (200, {"success": True, "paused": False, "nodes": ["a", "b"]})
    assert (await get(served, "/_/status"))["remote"]["node_id"] == "a"
    assert (await post(served, "/_/pause?node=nobody"))[0] == 404


async def test_switched_off_it_shows_nothing_of_the_fleet() -> None:
    async with serving(fleet_api=False) as served:
        await gpu_worker(served, "a", OLLAMA)
        assert (await get(served, "/_/fleet"))["enabled"] is False
        status = await get(served, "/_/status")
        assert (status["enabled"], status["remote"]["url"]) == (False, None)


@pytest.mark.parametrize(("path", "body"), [("/_/start", None), ("/_/stop", None), ("/_/ttl", {"ttl_s": 60})])
async def test_without_a_machine_in_a_cloud_there_is_none_to_wake(served: Served, path: str, body: Any) -> None:
    status, problem = await post(served, path, body)
    assert (status, problem["code"]) == (503, "cloud_not_configured")


async def test_a_machine_in_a_cloud_is_woken_and_stopped() -> None:
    asked: list[object] = []

    class Machine:
        async def start(self) -> Mapping[str, Any]:
            asked.append("start")
            return {"id": "i-1", "state": "running"}

        async def stop(self) -> Mapping[str, Any]:
            asked.append("stop")
            return {"id": "i-1", "state": "stopped"}

        async def set_idle_time(self, ttl_s: float) -> Mapping[str, Any]:
            asked.append(ttl_s)
            return {"id": "i-1", "ttl_s": ttl_s}

    async with serving() as served:
        served.plane.plane = msgspec.structs.replace(served.plane.plane, machine=Machine())
        assert await post(served, "/_/start") == (200, {"success": True, "machine": {"id": "i-1", "state": "running"}})
        assert (await post(served, "/_/stop"))[1]["machine"]["state"] == "stopped"
        assert (await post(served, "/_/ttl", {"ttl_s": 90}))[1]["machine"]["ttl_s"] == 90
        assert (await post(served, "/_/ttl", {"ttl_s": -1}))[0] == 400
    assert asked == ["start", "stop", 90.0]


def test_an_ipv6_address_is_bracketed() -> None:
    assert proxy.url_of("fd00::1", 11434) == "http://[fd00::1]:11434"
