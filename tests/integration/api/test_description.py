"""The API's description: whole, true in its examples, and no way to break the server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from muster.access.roles import Right
from muster.access.routes import right_for
from tests.integration.api.conftest import Served

_STREAMS = "text/event-stream"


@pytest.fixture
async def description(served: Served) -> Any:
    async with served.client.get("/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


def operations(description: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


async def test_every_operation_is_described(description: Any) -> None:
    tags = {tag["name"] for tag in description["tags"]}
    for method, path, operation in operations(description):
        assert operation["summary"], path
        assert operation["tags"], path
        assert set(operation["tags"]) <= tags, path
        assert any(int(status) >= 400 for status in operation["responses"]), path
        assert ("security" in operation) is (right_for(method.upper(), path) is not Right.OPEN), path
    ids = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(set(ids)) == len(ids)


async def test_every_answer_and_every_body_has_an_example(description: Any) -> None:
    for _, path, operation in operations(description):
        contents = [answer.get("content", {}) for answer in operation["responses"].values()]
        contents.append(operation.get("requestBody", {}).get("content", {}))
        for media in (media for content in contents for media in content.values()):
            assert "example" in media, path


async def test_every_example_of_a_body_is_one_that_is_taken(served: Served, description: Any) -> None:
    for method, path, operation in operations(description):
        content = operation.get("requestBody", {}).get("content", {})
        if method != "post" or "application/json" not in content or operation["tags"] == ["models"]:
            continue
        body = content["application/json"]["example"]
        filled = path.replace("{node_id}", "gpu-node-1").replace("{action}", "deregister")
        async with served.client.post(filled, json=body) as answer:
            text = await answer.text()
            said = json.loads(text or "{}")
            assert answer.status < 300 or said.get("error", said)["code"] in _TRUE_REFUSALS, (path, text)


# An example can be right and still be refused by a fleet in which nothing is.
_TRUE_REFUSALS = {
    "MODEL_NOT_AVAILABLE",
    "batch_not_found",
    "cloud_not_configured",
    "conflict",
    "model_not_found",
    "node_not_found",
    "not_found",
    "webhook_not_found",
}


async def test_paths_of_the_gateway_are_described_too(description: Any) -> None:
    for path in ("/v1/chat/completions", "/v1/models", "/api/chat", "/api/tags"):
        assert path in description["paths"]


async def test_whoever_follows_the_description_finds_every_tag(description: Any) -> None:
    used = {tag for _, _, operation in operations(description) for tag in operation["tags"]}
    assert {tag["name"] for tag in description["tags"]} == used
