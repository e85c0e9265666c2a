"""A control plane as older nodes and clients see it, in this process, so that the whole suite takes seconds."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.integration.api.conftest import Served, serving
from tests.planes import PlaneUnderTest

CAPABILITIES = {
    "gpus": [{"device_id": 0, "name": "RTX 3090", "vram_total_bytes": 24_000_000_000, "compute_capability": "8.6"}],
    "cpu_cores": 16,
    "ram_total_bytes": 64_000_000_000,
}


class Api:
    """What a client of `/v2` does."""

    def __init__(self, served: Served) -> None:
        self.plane: PlaneUnderTest = served.plane
        self.url = served.url
        self.client = served.client

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        async with self.client.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await _content(answer), answer.headers

    async def get(self, path: str) -> Any:
        status, body, _ = await self.call("GET", path)
        assert status == 200, body
        return body

    async def register(self, node_id: str, **fields: Any) -> None:
        full = {
            "node_id": node_id,
            "machine_id": f"machine-of-{node_id}",
            "address": f"http://{node_id}.example:9200",
            "pools": ["pool-0"],
            "capabilities": CAPABILITIES,
            "version": "0.2.0",
        }
        status, body, _ = await self.call("POST", "/v2/nodes/register", full | fields)
        assert (status, body.get("success"), body.get("node_id")) == (200, True, node_id), body

    async def heartbeat(self, node_id: str, *pools: Mapping[str, Any]) -> None:
        body = {"timestamp": "2025-10-01T00:00:00Z", "pools": [dict(pool) for pool in pools], "gpus": []}
        status, answer, _ = await self.call("POST", f"/v2/nodes/{node_id}/heartbeat", body)
        assert (status, answer["success"]) == (200, True)

    async def node(self, node_id: str, model: str = "model-a", **pool: Any) -> None:
        """Register and report one pool with a model."""
        await self.register(node_id)
        await self.heartbeat(node_id, pool_of(model, **pool))

    async def place(self, model: str | None = None, **wish: Any) -> str | None:
        """Return the node that placement chooses."""
        status, answer, _ = await self.call("POST", "/api/v1/explain", {"model": model} | wish)
        assert status == 200, answer
        return None if answer["chosen"] is None else str(answer["chosen"]).split("/")[0]

    async def refusal(self, model: str | None = None, **wish: Any) -> str:
        _, answer, _ = await self.call("POST", "/api/v1/explain", {"model": model} | wish)
        return str(answer["refusal"]["code"])


def pool_of(*models: str, **fields: Any) -> dict[str, Any]:
    usual = {
        "pool_id": "pool-0",
        "ready": True,
        "draining": False,
        "slots_free": 3,
        "slots_total": 4,
        "vram_free_bytes": 18_000_000_000,
        "engine": "llamacpp",
        "models_available": list(models),
    }
    return usual | fields


@asynccontextmanager
async def control_plane(token: str = "", **options: Any) -> AsyncIterator[Api]:
    async with serving(token, **options) as served:
        yield Api(served)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with control_plane() as api:
        yield api


async def _content(answer: aiohttp.ClientResponse) -> Any:
    return await answer.json() if answer.content_type == "application/json" else await answer.text()
