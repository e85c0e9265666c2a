"""The logs of a control plane over the real port, and what it notes of requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import Served, serving
from tests.waiting import eventually


@pytest.fixture
async def talking(tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "server.log").write_text(
        "1970-01-01T00:15:15.000Z first\n1970-01-01T00:15:16.000Z WARNING second Bearer hunter2hunter2\n"
    )
    (tmp_path / "api.log").write_text("1970-01-01T00:15:15.500Z between\n")
    async with serving(logs=tmp_path) as served:
        yield served
        await served.plane.logs.stop()


async def said(served: Served, path: str, **headers: str) -> tuple[int, str]:
    async with served.client.get(path, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_a_log_is_text_or_objects(talking: Served) -> None:
    path = "/api/v1/nodes/control-plane/logs/server"
    assert await said(talking, path) == (
        200,
        "1970-01-01T00:15:15.000Z first\n1970-01-01T00:15:16.000Z WARNING second Bearer ***\n",
    )
    _, text = await said(talking, f"{path}?tail=1", Accept="application/x-ndjson")
    assert json.loads(text) == {
        "node_id": "control-plane",
        "log": "server",
        "at": "1970-01-01T00:15:16.000Z",
        "seen": False,
        "level": "warning",
        "text": "1970-01-01T00:15:16.000Z WARNING second Bearer ***",
    }


async def test_several_logs_come_in_the_order_of_time_and_between_two_times(talking: Served) -> None:
    _, text = await said(talking, "/api/v1/logs?source=control-plane")
    assert [line.split(" ", 1)[1].split()[-1] for line in text.splitlines()] == ["first", "between", "***"]
    _, text = await said(
        talking, "/api/v1/logs?source=control-plane&since=1970-01-01T00:15:15.400Z&until=1970-01-01T00:15:15.600Z"
    )
    assert text == "1970-01-01T00:15:15.500Z between\n"


async def test_of_one_that_cannot_be_read_there_is_a_note_among_the_others(talking: Served) -> None:
    status, text = await said(talking, "/api/v1/logs?source=n9&source=control-plane/api")
    assert (status, text.splitlines()) == (
        200,
        ["-- n9: no node 'n9' in this fleet", "1970-01-01T00:15:15.500Z between"],
    )


async def test_a_follower_gets_events_and_a_stop_ends_them(talking: Served, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    ended = asyncio.Event()

    async def follow() -> None:
        url = "/api/v1/nodes/control-plane/logs/api?follow=true&tail=1"
        async with talking.client.get(url) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            async for line in answer.content:
                if line.startswith(b"data: "):
                    rows[len(rows) :] = [json.loads(line[6:])]
        ended.set()

    following = asyncio.create_task(follow())
    await eventually(lambda: [row["text"][-7:] for row in rows] == ["between"])
    (tmp_path / "api.log").open("a").close()
    with (tmp_path / "api.log").open("a") as file:
        file.write("news\n")
    await eventually(lambda: rows[-1]["text"] == "news")
    assert rows[-1]["seen"]
    await talking.plane.logs.stop()
    await eventually(ended.is_set)
    await following


async def test_clearing_is_a_fact_with_a_name(talking: Served) -> None:
    async with talking.client.delete("/api/v1/nodes/control-plane/logs/api") as answer:
        assert [log["bytes"] for log in (await answer.json())["logs"]] == [0]
    assert "logs_cleared" in await talking.plane.recorded()


async def test_what_changes_something_is_noted_and_who_looks_is_not(served: Served) -> None:
    job = {"service_required": "simulation", "payload": {}}
    async with served.client.post("/api/jobs", json=job, headers={"X-Correlation-Id": "c-1"}) as answer:
        job_id = (await answer.json())["job_id"]
    await said(served, "/api/jobs")
    await said(served, "/api/jobs/nothing", **{"X-Correlation-Id": "c-2"})
    async with served.client.post("/api/agent/nothing"):
        pass
    noted = [(one["event"], one.get("path"), one.get("status"), one["correlation_id"]) for one in served.plane.noted]
    assert noted[:3] == [
        ("jobs_submitted", None, None, "c-1"),
        ("request", "/api/jobs", 201, "c-1"),
        ("request", "/api/jobs/nothing", 404, "c-2"),
    ]
    assert served.plane.noted[0]["job_ids"] == [job_id]
    assert (await served.plane.jobs.get(job_id)).spec.correlation_id == "c-1"


async def test_the_story_of_a_job_has_its_facts_and_says_what_is_missing(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    await served.plane.claim()
    async with served.client.get(f"/api/jobs/{job_id}/timeline") as answer:
        timeline = await answer.json()
    assert [entry["text"] for entry in timeline["entries"]] == ["job_submitted", "job_claimed"]
    assert timeline["entries"][1]["data"] == {"job_id": job_id, "worker_id": "n1-worker-0", "attempts": 1}
    assert timeline["notes"] == ["n1: no node 'n1' in this fleet"]
    async with served.client.get("/api/jobs/unknown/timeline") as answer:
        assert answer.status == 404


async def test_a_client_may_not_read_logs() -> None:
    async with serving(token="admins") as served:
        admin = {"Authorization": "Bearer admins"}
        for role, status in (("client", 403), ("viewer", 403), ("operator", 200)):
            async with served.client.post("/api/v1/tokens", json={"name": role, "role": role}, headers=admin) as answer:
                token = (await answer.json())["token"]
            shown = {"Authorization": f"Bearer {token}"}
            for path in ("/api/v1/logs", "/api/v1/nodes/control-plane/logs", "/api/v1/timeline?correlation_id=x"):
                assert (await said(served, path, **shown))[0] == status, (role, path)
