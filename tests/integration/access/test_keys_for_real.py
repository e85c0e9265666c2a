"""Budgets and usage with a real control plane that is killed and comes back."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.access.tokens import PREFIX
from tests.integration.gateway.engine import Engine
from tests.muster_process import ControlPlane
from tests.waiting import eventually

BOOT = "bootstrap-5ecret"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path, env={"MUSTER_TOKEN": BOOT})
    plane.start()
    yield plane
    plane.stop()


def node_with(engine: Engine) -> dict[str, Any]:
    model = {"name": "m", "resident": True}
    service = {
        "name": "llama",
        "connector": "llamacpp",
        "status": "running",
        "url": engine.url,
        "dialects": ["openai"],
        "models": [model],
    }
    return {
        "facts": {"node_id": "n1", "hostname": "n1", "platform": "linux", "agent_version": "0.1.0"},
        "boot_id": "b1",
        "seq": time.monotonic_ns(),
        "heartbeat_interval_s": 30.0,
        "gpus": [{"index": 0, "power_w": 3600.0}],
        "services": [service],
    }


class Caller:
    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = plane.url
        self._session = session

    async def post(self, path: str, body: object, token: str = BOOT) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.post(self._url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        async with self._session.get(self._url + path, headers={"Authorization": f"Bearer {BOOT}"}) as answer:
            assert answer.status == 200
            return await answer.json()

    async def usage(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get("/api/v1/usage?by=token,model"))["usage"]
        return found


async def test_a_budget_outlives_a_control_plane_that_is_killed(plane: ControlPlane) -> None:
    async with Engine() as engine, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        caller = Caller(plane, session)
        status, made = await caller.post(
            "/api/v1/tokens", {"name": "shop", "role": "client", "allowance": {"tokens_per_month": 20}}
        )
        assert status == 201
        token = made["token"]
        await caller.post("/api/agent/heartbeat", node_with(engine))

        for _ in range(2):
            assert (await caller.post("/v1/chat/completions", ASK, token))[0] == 200
        status, refused = await caller.post("/v1/chat/completions", ASK, token)
        assert (status, refused["error"]["code"]) == (429, "insufficient_quota")

        async def written() -> bool:
            return bool(await caller.usage())

        await eventually(written)
        (row,) = before = await caller.usage()
        assert (row["token_name"], row["model"], row["requests"], row["tokens"]) == ("shop", "m", 2, 24)
        assert row["watt_hours"] is not None

        await asyncio.to_thread(plane.kill)
        await asyncio.to_thread(plane.start)
        await caller.post("/api/agent/heartbeat", node_with(engine))
        assert (await caller.post("/v1/chat/completions", ASK, token))[0] == 429
        assert await caller.usage() == before
        path = f"/api/v1/tokens/{token.removeprefix(PREFIX).partition('_')[0]}/allowance"
        async with session.put(
            plane.url + path, json={"tokens_per_month": 100}, headers={"Authorization": f"Bearer {BOOT}"}
        ) as changed:
            assert (await changed.json())["used"]["tokens_this_month"] == 24
        assert (await caller.post("/v1/chat/completions", ASK, token))[0] == 200
