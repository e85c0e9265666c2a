"""The last quarter of an hour of a node, over the real port."""

from muster.domain.gpu import Gpu
from muster.domain.node import Resources
from muster.errors import NodeNotFound
from tests.integration.api.conftest import Served


async def test_the_curves_of_a_node_are_told_with_gaps_where_nothing_is_known(served: Served) -> None:
    plane = served.plane
    for seq, used_mb in enumerate((1000, None, 3000), start=1):
        gpu = Gpu(index=0, name="L4", memory_total_mb=23_034, memory_used_mb=used_mb, temperature_c=40.5)
        resources = Resources(cpu_percent=12.5, memory_used_mb=used_mb, memory_total_mb=64_000)
        await plane.heartbeat("n1", seq=seq, gpus=(gpu,), resources=resources)
        plane.clock.advance(10)
    async with served.client.get("/api/v1/nodes/n1/history") as answer:
        body = await answer.json()
    at = body.pop("at")
    assert [later - at[0] for later in at] == [0, 10_000, 20_000]
    assert body == {
        "node_id": "n1",
        "memory_total_mb": 64_000,
        "cpu_percent": [12.5, 12.5, 12.5],
        "memory_used_mb": [1000, None, 3000],
        "gpus": [
            {
                "index": 0,
                "name": "L4",
                "memory_total_mb": 23_034,
                "utilization_percent": [None, None, None],
                "memory_used_mb": [1000, None, 3000],
                "temperature_c": [40.5, 40.5, 40.5],
                "power_w": [None, None, None],
            }
        ],
    }


async def test_a_node_that_is_not_there_has_no_history(served: Served) -> None:
    async with served.client.get("/api/v1/nodes/n1/history") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, NodeNotFound.code)


async def test_figures_of_nodes_are_there_for_prometheus(served: Served) -> None:
    await served.plane.heartbeat("n1", gpus=(Gpu(index=0, utilization_percent=50.0),))
    async with served.client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert 'muster_node_health{node="n1",health="healthy"} 1' in lines
    assert 'muster_gpu_utilization_ratio{node="n1",gpu="0"} 0.5' in lines
    assert len(lines) == len(set(lines)), "no family is told twice"
