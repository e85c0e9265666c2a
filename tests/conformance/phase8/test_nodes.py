"""Nodes of the older API: registration, heartbeats, catalog, goodbye, and who may speak."""

import pytest

from tests.conformance.phase8.conftest import Api, control_plane, pool_of


async def test_registration_flow(api: Api) -> None:
    await api.register("gpu-node-1")
    listed = await api.get("/v2/nodes")
    assert listed["count"] == 1
    assert listed["nodes"][0]["node_id"] == "gpu-node-1"
    assert listed["nodes"][0]["status"] == "Registering"  # no heartbeat was needed to be listed
    assert [pool["pool_id"] for pool in listed["nodes"][0]["pools"]] == ["pool-0"]


@pytest.mark.parametrize(
    "capabilities",
    [{}, {"gpus": [{"device": "GPU0", "vram_gb": 24}]}, {"gpus": ["GPU0", 7, None]}, {"gpus": "two"}, None],
)
async def test_capabilities_tolerance(api: Api, capabilities: object) -> None:
    await api.register("gpu-node-1", capabilities=capabilities)
    assert (await api.get("/v2/nodes"))["count"] == 1


async def test_capabilities_tolerance_reads_what_it_can(api: Api) -> None:
    await api.register("gpu-node-1", capabilities={"gpus": [{"device": "GPU0", "vram_gb": 24}], "cpu_cores": 16})
    node = await api.get("/api/v1/nodes/gpu-node-1")
    assert (node["type"], node["gpu_count"], node["cpu_cores"]) == ("gpu-worker", 1, 16)
    assert (node["gpus"][0]["name"], node["gpus"][0]["memory_total_mb"]) == ("GPU0", 24 * 1024)
    assert node["gpus"][0]["memory_used_mb"] is None  # nobody said: unknown, not 0


async def test_registration_without_its_optional_parts(api: Api) -> None:
    status, body, _ = await api.call("POST", "/v2/nodes/register", {"node_id": "bare"})
    assert (status, body["success"]) == (200, True)
    assert (await api.get("/v2/nodes"))["nodes"][0]["pools"] == []


@pytest.mark.parametrize("node_id", ["", "unknown", "a b", "x" * 200])
async def test_registration_of_an_id_that_names_nobody(api: Api, node_id: str) -> None:
    status, body, _ = await api.call("POST", "/v2/nodes/register", {"node_id": node_id})
    assert (status, body["field"]) == (400, "node_id")
    assert (await api.get("/v2/nodes"))["count"] == 0


@pytest.mark.parametrize("address", ["http://", "ftp://host", "http://host:99999", "two words", "http://host:port"])
async def test_registration_at_an_address_that_is_none(api: Api, address: str) -> None:
    status, body, _ = await api.call("POST", "/v2/nodes/register", {"node_id": "n1", "address": address})
    assert (status, body["field"]) == (400, "address")
    assert (await api.get("/v2/nodes"))["count"] == 0


async def test_registration_again_is_the_same_node(api: Api) -> None:
    await api.node("gpu-node-1")
    await api.register("gpu-node-1")
    listed = await api.get("/v2/nodes")
    assert (listed["count"], listed["nodes"][0]["status"]) == (1, "Registering")
    await api.heartbeat("gpu-node-1", pool_of("model-a"))
    assert (await api.get("/v2/nodes"))["nodes"][0]["status"] == "Online"


async def test_heartbeat(api: Api) -> None:
    await api.register("gpu-node-1")
    body = {"timestamp": "2025-10-01T00:00:00Z", "pools": [pool_of("model-a")], "gpus": []}
    status, answer, _ = await api.call("POST", "/v2/nodes/gpu-node-1/heartbeat", body)
    assert (status, answer) == (200, {"success": True, "next_heartbeat_ms": 10_000})
    (node,) = (await api.get("/v2/nodes"))["nodes"]
    (pool,) = node["pools"]
    assert node["status"] == "Online"
    assert (pool["ready"], pool["slots_free"], pool["slots_total"]) == (True, 3, 4)
    assert pool["vram_free_bytes"] == 18_000_000_000
    health = await api.get("/v2/pools/pool-0/health")
    assert (health["live"], health["ready"], health["draining"]) == (True, True, False)
    assert health["metrics"]["slots_free"] == 3
    assert health["last_error"] is None


async def test_heartbeat_unknown_node(api: Api) -> None:
    status, body, _ = await api.call("POST", "/v2/nodes/nobody/heartbeat", {"pools": []})
    assert (status, body["code"]) == (404, "node_not_found")


async def test_heartbeat_for_a_node_of_another_link(api: Api) -> None:
    await api.plane.heartbeat("n1")
    status, body, _ = await api.call("POST", "/v2/nodes/n1/heartbeat", {"pools": []})
    assert (status, body["code"]) == (409, "conflict")


async def test_heartbeat_brings_an_offline_node_back(api: Api) -> None:
    await api.node("gpu-node-1")
    api.plane.clock.advance(60.0)
    api.plane.fleet.tick()
    assert (await api.get("/v2/nodes"))["nodes"][0]["status"] == "Offline"
    await api.heartbeat("gpu-node-1", pool_of("model-a"))
    assert (await api.get("/v2/nodes"))["nodes"][0]["status"] == "Online"


async def test_catalog(api: Api) -> None:
    await api.node("node-1", "model-a")
    await api.node("node-2", "model-b")
    seen = await api.get("/v2/catalog/availability")
    assert seen["nodes"] == {"node-1": ["model-a"], "node-2": ["model-b"]}
    assert seen["total_models"] == 2
    assert seen["single_node_models"] == ["model-a", "model-b"]
    assert seen["replicated_models"] == []


async def test_catalog_with_a_model_on_both_nodes(api: Api) -> None:
    await api.node("node-1", "model-a")
    await api.node("node-2", "model-a")
    seen = await api.get("/v2/catalog/availability")
    assert (seen["total_models"], seen["replicated_models"], seen["single_node_models"]) == (1, ["model-a"], [])


async def test_catalog_forgets_what_a_silent_node_had(api: Api) -> None:
    await api.node("node-1", "model-a")
    api.plane.clock.advance(31.0)
    assert (await api.get("/v2/catalog/availability"))["total_models"] == 0


async def test_deregister(api: Api) -> None:
    await api.node("gpu-node-1")
    assert (await api.call("DELETE", "/v2/nodes/gpu-node-1"))[0] == 204
    assert (await api.get("/v2/nodes"))["count"] == 0
    assert (await api.call("DELETE", "/v2/nodes/gpu-node-1"))[0] == 404
    assert await api.place("model-a") is None  # its pools went with it


async def test_deregister_and_come_back_at_once(api: Api) -> None:
    await api.node("gpu-node-1")
    await api.call("DELETE", "/v2/nodes/gpu-node-1")
    await api.node("gpu-node-1")
    assert (await api.get("/v2/nodes"))["nodes"][0]["status"] == "Online"


_ROUTES = [
    ("POST", "/v2/nodes/register"),
    ("POST", "/v2/nodes/n1/heartbeat"),
    ("GET", "/v2/nodes"),
    ("DELETE", "/v2/nodes/n1"),
    ("GET", "/v2/catalog/availability"),
    ("POST", "/v2/pools/pool-0/drain"),
    ("POST", "/v2/pools/n1/pool-0/drain"),
    ("POST", "/v2/pools/pool-0/resume"),
    ("POST", "/v2/pools/n1/pool-0/resume"),
    ("GET", "/v2/pools/pool-0/health"),
    ("GET", "/v2/pools/n1/pool-0/health"),
    ("POST", "/v2/tasks"),
    ("GET", "/v2/tasks/t1/events"),
    ("POST", "/v2/tasks/t1/cancel"),
]


async def test_auth() -> None:
    async with control_plane(token="right") as api:
        for method, path in _ROUTES:
            assert (await api.call(method, path))[0] == 401, path
            assert (await api.call(method, path, headers={"Authorization": "Bearer wrong"}))[0] == 401, path
            assert (await api.call(method, path, {}, {"Authorization": "Bearer right"}))[0] not in {401, 403}, path
        assert (await api.call("GET", "/v2/nodes", headers={"Authorization": "Bearer right"}))[0] == 200
        assert (await api.call("GET", "/metrics"))[0] == 200


async def test_cloud_profile_off() -> None:
    async with control_plane(cloud_profile=False) as api:
        for method, path in _ROUTES[:5]:
            status, body, _ = await api.call(method, path, {"node_id": "n1"} if method == "POST" else None)
            assert (status, body["code"]) == (503, "switched_off"), path
        assert (await api.call("GET", "/api/v1/nodes"))[0] == 200
