"""Kinds of jobs over HTTP: what their payloads are, where they run, and that a submit is checked by the same."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.access.roles import Role
from muster.connectors.catalog import BUILT_IN_NAMES, job_kinds
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import WorkerId
from tests.integration.api.conftest import Served, serving
from tests.integration.api.test_files import ADMIN, token_of

KINDS = job_kinds()


@pytest.fixture
async def kinds() -> AsyncIterator[Served]:
    async with serving(kinds=KINDS) as served:
        yield served


def worker(**statuses: str) -> Worker:
    named = {name.replace("__", ":"): status for name, status in statuses.items()}
    return Worker(
        worker_id=WorkerId("n1-worker-0"),
        index=0,
        status=WorkerStatus.IDLE,
        connectors=tuple(named),
        connector_statuses=named,
    )


async def listed(served: Served, **headers: str) -> dict[str, Any]:
    async with served.client.get("/api/connectors", headers=headers) as answer:
        assert answer.status == 200
        return {entry["name"]: entry for entry in (await answer.json())["connectors"]}


async def test_all_are_listed_with_their_payloads_and_where_they_run(kinds: Served) -> None:
    await kinds.plane.heartbeat(
        workers=(worker(simulation="running", comfyui="unhealthy", http__thumbs="running", own="running"),)
    )
    found = await listed(kinds)
    assert list(found) == [*BUILT_IN_NAMES, "own"]
    assert found["comfyui"]["schema"]["properties"]["prompt"]["type"] == "object"
    assert found["comfyui"]["available"] == []
    assert found["simulation"]["available"] == [{"service": "simulation", "workers": 1, "node_ids": ["n1"]}]
    assert found["http"]["available"] == [{"service": "http:thumbs", "workers": 1, "node_ids": ["n1"]}]
    assert found["own"]["schema"] is None  # of a package that only that node has
    for name in BUILT_IN_NAMES:
        assert "$ref" not in json.dumps(found[name]["schema"])


async def test_who_does_not_see_the_fleet_sees_no_nodes() -> None:
    async with serving(token="admin-secret", kinds=KINDS) as served:
        await served.plane.heartbeat(workers=(worker(simulation="running"),))
        client, _ = await token_of(served, Role.CLIENT)
        found = await listed(served, Authorization=f"Bearer {client}")
        assert found["simulation"]["available"] == [{"service": "simulation", "workers": 1, "node_ids": None}]
        assert (await listed(served, **ADMIN))["simulation"]["available"][0]["node_ids"] == ["n1"]


async def test_the_description_shows_what_a_payload_may_be(kinds: Served) -> None:
    async with kinds.client.get("/openapi.json") as answer:
        schemas = (await answer.json())["components"]["schemas"]
    payload = schemas["SubmitJob"]["properties"]["payload"]
    assert {"$ref": "#/components/schemas/Payload_comfyui"} in payload["anyOf"]
    assert schemas["Payload_http"]["properties"]["path"]


@pytest.mark.parametrize(
    ("service", "payload", "field"),
    [
        ("comfyui", {"prompt": {}}, "payload.prompt"),
        ("http:thumbs", {"url": "http://elsewhere"}, "payload.url"),
        ("command:render", {"argv": ["rm"]}, "payload.argv"),
        ("ollama", {"model": "m"}, "payload"),
        ("simulation", {"duration_ms": -1}, "payload.duration_ms"),
    ],
)
async def test_a_submit_is_checked_by_the_same_rules(kinds: Served, service: str, payload: Any, field: str) -> None:
    async with kinds.client.post("/api/jobs", json={"service_required": service, "payload": payload}) as answer:
        assert answer.status == 400
        assert (await answer.json())["field"] == field
    async with kinds.client.get("/api/jobs") as answer:
        assert (await answer.json())["total"] == 0
