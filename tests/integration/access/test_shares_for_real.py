"""A real control plane whose one engine is shared by jobs and by callers of different weight and priority."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.access.test_keys_for_real import ASK, BOOT, Caller, node_with
from tests.integration.gateway.engine import Engine
from tests.muster_process import ControlPlane
from tests.waiting import eventually

WORKER = {"worker_id": "n1-worker-0", "session_id": "s1"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path, env={"MUSTER_TOKEN": BOOT})
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


@pytest.fixture
async def caller(plane: ControlPlane, engine: Engine) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        caller = Caller(plane, session)
        heartbeat = node_with(engine)
        heartbeat["services"][0]["slots"] = 1
        await caller.post("/api/agent/heartbeat", heartbeat)
        capability = {"services": ["openai"], "models": ["m"]}
        await caller.post("/api/agent/session", WORKER | {"node_id": "n1", "capability": capability})
        yield caller


async def token(caller: Caller, name: str, role: str = "client", **allowance: Any) -> str:
    status, made = await caller.post("/api/v1/tokens", {"name": name, "role": role, "allowance": allowance})
    assert status == 201
    return str(made["token"])


async def claim(caller: Caller, want: int, *done: dict[str, Any]) -> list[dict[str, Any]]:
    status, reply = await caller.post("/api/agent/claim", WORKER | {"want": want, "done": list(done)})
    assert status == 200
    return list(reply.get("jobs", ()))


async def lines(caller: Caller) -> list[dict[str, Any]]:
    return list((await caller.get("/api/v1/gateway"))["lines"])


async def test_a_job_holds_a_slot_and_callers_wait_by_weight_and_priority(caller: Caller, engine: Engine) -> None:
    ann, ten = await token(caller, "ann"), await token(caller, "ten", weight=4.0)
    low = await token(caller, "low", priority=10)
    status, made = await caller.post("/api/jobs", {"service_required": "openai", "payload": ASK, "priority": 90}, low)
    assert (status, made["job"]["priority"]) == (201, 10)
    (job,) = await claim(caller, 1)

    asked = []
    for number, (shown, text) in enumerate(
        [(low, "low"), (ann, "ann1"), (ann, "ann2"), (ten, "ten1"), (ten, "ten2")], start=1
    ):
        body = ASK | {"messages": [{"role": "user", "content": text}]}
        asked.append(asyncio.create_task(caller.post("/v1/chat/completions", body, shown)))

        async def all_wait(count: int = number) -> bool:
            return [line["waiting"] for line in await lines(caller)] == [count]

        await eventually(all_wait)
    (line,) = await lines(caller)
    assert {one["name"]: one["weight"] for one in line["callers"]} == {"ann": 1.0, "ten": 4.0, "low": 1.0}
    assert engine.requests == []  # the job is the worker's to ask, and this one has not yet

    await claim(caller, 0, {"job_id": job["spec"]["job_id"], "attempt": job["attempt"], "kind": "completed"})
    assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 5
    order = [json.loads(request.body)["messages"][0]["content"] for request in engine.requests]
    assert order == ["ten1", "ten2", "ann1", "ann2", "low"]
