"""A queen as hives see it, in this process, and readers of its stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.integration.api.conftest import Served, serving

Event = dict[str, Any]

TOTAL_MB = 24_576


def worker_of(
    pid: int, group: str = "llm", instance: str = "8080", util: float = 0.0, vram_mb: int = 0, model: str | None = None
) -> dict[str, Any]:
    """Tell of a process with the figures that the document's own tests have."""
    return {
        "pid": pid,
        "group": group,
        "instance": instance,
        "cpu_pct": 0.0,
        "rss_mb": 1024,
        "io_r_mb_s": 0.0,
        "io_w_mb_s": 0.0,
        "uptime_s": 100,
        "gpu_util_pct": util,
        "vram_mb": vram_mb,
        "total_vram_mb": TOTAL_MB,
        "model": model,
    }


def heartbeat_of(hive_id: str, *workers: dict[str, Any], **hive: Any) -> dict[str, Any]:
    info = {
        "id": hive_id,
        "hostname": "127.0.0.1",
        "port": 7835,
        "operational_status": "Ready",
        "health_status": "Healthy",
        "version": "0.1.0",
    }
    return {"hive": info | hive, "timestamp": "2025-10-30T18:30:00Z", "workers": list(workers)}


class Stream:
    """One client of `/v1/heartbeats/stream`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, kind: str | None = None, timeout_s: float = 10.0, **fields: Any) -> Event:
        """Return the next event, of that kind and with these fields when given."""
        async with asyncio.timeout(timeout_s):
            while True:
                event = await self._event()
                if kind in (None, event["type"]) and fields.items() <= event.items():
                    return event

    async def _event(self) -> Event:
        name, data = "", ""
        while line := (await self.response.content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            name, data = (value, data) if field == "event" else (name, value) if field == "data" else (name, data)
        if not data:
            return await self._event()  # a sign of life
        assert name == "heartbeat"
        event: Event = json.loads(data)
        return event


class Queen:
    def __init__(self, served: Served) -> None:
        self.plane = served.plane
        self.url = served.url
        self.client = served.client

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.client.request(method, path, json=body) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def hear(self, hive_id: str, *workers: dict[str, Any], **hive: Any) -> None:
        status, body = await self.call("POST", "/v1/hive-heartbeat", heartbeat_of(hive_id, *workers, **hive))
        assert status == 200, body

    async def workers(self, **query: Any) -> list[dict[str, Any]]:
        """Return the workers that fit; `pid` is that of the service behind each."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        found: list[dict[str, Any]] = await self.get(f"/api/v1/workers?{asked}")
        pids = {
            (node["id"], service["name"]): service["pid"]
            for node in await self.get("/api/v1/nodes")
            for service in node["services"]
        }
        return [worker | {"pid": pids[worker["node_id"], worker["service"]]} for worker in found]

    async def pids(self, **query: Any) -> list[int]:
        return sorted(worker["pid"] for worker in await self.workers(**query))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Stream]:
        async with self.client.get("/v1/heartbeats/stream") as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            yield Stream(response)


@asynccontextmanager
async def queen_running(**options: Any) -> AsyncIterator[Queen]:
    async with serving(**options) as served:
        yield Queen(served)


@pytest.fixture
async def queen() -> AsyncIterator[Queen]:
    async with queen_running() as queen:
        yield queen
