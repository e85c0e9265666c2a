"""Where work goes: the rules of the older API's placement, asked where the gateway asks."""

from collections import Counter
from typing import Any

import pytest

from muster.domain.node import NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.gateway.routing.route import Router
from muster.ids import NodeId
from muster.placement.scores import Strategy
from muster.settings import load_settings
from tests.chance import FixedChance
from tests.conformance.phase8.conftest import Api, pool_of

_ANY = frozenset(Dialect)


async def test_placement_model_filter(api: Api) -> None:
    await api.node("node-1", "model-a")
    await api.node("node-2", "model-b")
    assert await api.place("model-a") == "node-1"
    assert await api.place("model-b") == "node-2"


async def test_model_missing(api: Api) -> None:
    await api.node("node-1", "model-a")
    assert await api.place("model-z") is None
    status, body, _ = await api.call("POST", "/v2/tasks", {"model": "model-z", "prompt": "hi"})
    assert (status, body["code"]) == (503, "MODEL_NOT_AVAILABLE")
    assert body["retriable"] is True
    assert (await api.get("/api/jobs"))["total"] == 0


async def test_no_model_given(api: Api) -> None:
    await api.node("node-1", "model-a")
    assert await api.place() == "node-1"


async def test_least_loaded(api: Api) -> None:
    await api.node("node-1", slots_free=1)
    await api.node("node-2", slots_free=3)
    assert await api.place("model-a") == "node-2"


async def test_least_loaded_then_most_free_memory_then_the_name(api: Api) -> None:
    await api.node("node-3", vram_free_bytes=10**10)
    await api.node("node-2", vram_free_bytes=2 * 10**10)
    assert await api.place("model-a") == "node-2"
    await api.node("node-1", vram_free_bytes=2 * 10**10)
    assert await api.place("model-a") == "node-1"


async def test_draining(api: Api) -> None:
    await api.node("node-1", draining=True, slots_free=4)
    await api.node("node-2", slots_free=1)
    assert await api.place("model-a") == "node-2"


async def test_not_ready(api: Api) -> None:
    await api.node("node-1", ready=False)
    assert await api.place("model-a") is None
    assert await api.refusal("model-a") == "no_worker_available"


async def test_round_robin(api: Api) -> None:
    await api.node("node-1")
    await api.node("node-2")
    router = Router(api.plane.fleet, strategy=Strategy.ROUND_ROBIN, rng=FixedChance(), clock=api.plane.clock)
    reserved = [router.reserve("model-a", "completion", _ANY) for _ in range(101)]
    placed = Counter(str(candidate.node_id) for candidate in reserved if candidate is not None)
    assert set(placed) == {"node-1", "node-2"}
    assert abs(placed["node-1"] - placed["node-2"]) <= 1


async def test_timeout_config(api: Api) -> None:
    await api.node("node-1")
    api.plane.clock.advance(30.0)
    api.plane.fleet.tick()
    assert await api.place("model-a") == "node-1"
    api.plane.clock.advance(0.1)
    api.plane.fleet.tick()
    assert await api.place("model-a") is None
    assert (await api.get("/v2/nodes"))["nodes"][0]["status"] == "Offline"


def test_timeout_config_default_and_override() -> None:
    assert load_settings({}, env={}).node_timeout_s == 30.0
    assert load_settings({}, env={"MUSTER_NODE_TIMEOUT_S": "7"}).node_timeout_s == 7.0


async def test_the_address_is_the_nodes_own(api: Api) -> None:
    await api.register("node-1", address="10.1.2.3:9200")
    await api.heartbeat("node-1", pool_of("model-a"), pool_of("model-a", pool_id="pool-1", url="http://127.0.0.1:7000"))
    urls = {candidate.service: candidate.url for candidate in api.plane.fleet.candidates()}
    assert urls == {"pool-0": "http://10.1.2.3:9200", "pool-1": "http://10.1.2.3:7000"}


async def test_two_nodes_may_each_have_a_pool_0(api: Api) -> None:
    await api.node("node-1", "model-a")
    await api.node("node-2", "model-b")
    await api.call("DELETE", "/v2/nodes/node-1")
    assert await api.place("model-b") == "node-2"


# --- pins -----------------------------------------------------------------------------------------------------------


async def test_a_pin_on_a_pool_holds_whoever_is_less_loaded(api: Api) -> None:
    await api.node("node-1", slots_free=1)
    await api.node("node-2", slots_free=4)
    assert await api.place("model-a", pool="node-1/pool-0") == "node-1"


async def test_a_pin_on_an_unknown_pool_is_an_error_of_its_own(api: Api) -> None:
    await api.node("node-1")
    assert await api.refusal("model-a", pool="pool-9") == "POOL_NOT_FOUND"
    status, body, _ = await api.call("POST", "/v2/tasks", {"model": "model-a", "prompt": "hi", "pool": "pool-9"})
    assert (status, body["code"]) == (404, "POOL_NOT_FOUND")


@pytest.mark.parametrize("state", [{"ready": False}, {"draining": True}])
async def test_a_pin_on_a_pool_that_is_not_ready_goes_nowhere_else(api: Api, state: dict[str, Any]) -> None:
    await api.node("node-1", **state)
    await api.node("node-2")
    assert await api.place("model-a", pool="node-1/pool-0") is None
    assert await api.refusal("model-a", pool="node-1/pool-0") == "POOL_NOT_READY"
    task = {"model": "model-a", "prompt": "hi", "pool": "node-1/pool-0"}
    status, body, _ = await api.call("POST", "/v2/tasks", task)
    assert (status, body["code"]) == (503, "POOL_NOT_READY")


async def test_a_name_that_several_nodes_use_must_be_made_clear(api: Api) -> None:
    await api.node("node-1")
    await api.node("node-2")
    status, body, _ = await api.call("POST", "/v2/pools/pool-0/drain")
    assert (status, body["code"], body["choices"]) == (409, "POOL_AMBIGUOUS", ["node-1/pool-0", "node-2/pool-0"])
    assert (await api.call("POST", "/v2/pools/node-1/pool-0/drain"))[0] == 202
    assert await api.place("model-a") == "node-2"


async def test_a_drained_pool_takes_nothing_until_it_is_taken_back(api: Api) -> None:
    await api.node("node-1")
    assert (await api.call("POST", "/v2/pools/pool-0/drain"))[:2] == (
        202,
        {"pool_id": "pool-0", "node_id": "node-1", "draining": True},
    )
    await api.heartbeat("node-1", pool_of("model-a"))  # the node knows nothing of it
    assert await api.place("model-a") is None
    assert (await api.get("/v2/pools/pool-0/health"))["draining"] is True
    assert (await api.call("POST", "/v2/pools/pool-0/resume"))[0] == 202
    assert await api.place("model-a") == "node-1"


async def test_labels_and_memory_narrow_the_choice(api: Api) -> None:
    await api.register("node-1", labels={"zone": "a"})
    await api.heartbeat("node-1", pool_of("model-a", vram_free_bytes=8 * 2**30))
    await api.register("node-2", labels={"zone": "b"})
    await api.heartbeat("node-2", pool_of("model-a", vram_free_bytes=20 * 2**30, slots_free=0))
    assert await api.place("model-a") == "node-1"
    assert await api.place("model-a", labels={"zone": "b"}) == "node-2"
    assert await api.place("model-a", min_memory_mb=16 * 1024) == "node-2"
    assert await api.place("model-a", node_id="node-2") == "node-2"
    assert await api.place("model-a", min_memory_mb=32 * 1024) is None


async def test_a_task_pinned_to_a_group_of_nodes_asks_for_a_worker_of_it(api: Api) -> None:
    await api.plane.heartbeat("n1", facts=NodeFacts(node_id=NodeId("n1"), pool="batch"))
    status, task, _ = await api.call("POST", "/v2/tasks", {"engine": "simulation", "prompt": "hi", "pool": "batch"})
    assert status == 202
    await api.plane.open_session("s1", "n1")
    assert (await api.plane.claim("s1", "n1")).jobs == ()
    await api.plane.open_session("s2", "n2", custom={"pool": "batch"})
    assert [job.spec.job_id for job in (await api.plane.claim("s2", "n2")).jobs] == [task["task_id"]]


async def test_a_task_cannot_be_pinned_to_a_service_of_an_agent(api: Api) -> None:
    service = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING)
    await api.plane.heartbeat("n1", services=(service,))
    status, body, _ = await api.call("POST", "/v2/tasks", {"engine": "simulation", "prompt": "hi", "pool": "llama"})
    assert (status, body["field"]) == (400, "pool")
