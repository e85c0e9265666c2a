"""Webhooks over HTTP: made, shown without their secrets, tried, removed; for operators only."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.webhooks.outcome import Answer
from tests.integration.api.conftest import Served, serving

URL = "https://receiver.example/in"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


async def asked(served: Served, method: str, path: str, token: str = "", **options: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with served.client.request(method, path, headers=headers, **options) as answer:
        return answer.status, json.loads(await answer.read() or b"null")


async def test_the_secret_is_told_once(served: Served) -> None:
    status, made = await asked(served, "POST", "/api/webhooks", json={"url": URL, "customer_id": "acme"})

    assert status == 201
    assert made["secret"].startswith("whsec_")
    _, listed = await asked(served, "GET", "/api/webhooks")
    _, one = await asked(served, "GET", f"/api/webhooks/{made['webhook']['id']}")
    assert listed == [made["webhook"]] == [one]
    assert made["secret"] not in json.dumps(listed)
    assert (one["customer_id"], one["paused"], one["waiting"]) == ("acme", None, 0)


async def test_a_test_is_a_delivery_like_any_other_and_can_be_repeated(served: Served) -> None:
    _, made = await asked(served, "POST", "/api/webhooks", json={"url": URL})
    path = f"/api/webhooks/{made['webhook']['id']}"
    served.plane.posted.answer = Answer(status=500, excerpt="no room")

    status, told = await asked(served, "POST", f"{path}/test")

    assert (status, told["status"], told["error"]) == (200, "failed", "it answered 500: no room")
    assert (await asked(served, "GET", f"{path}/deliveries"))[1] == [told]
    ((url, headers, body),) = served.plane.posted.sent
    assert (url, headers["webhook-id"], json.loads(body)["type"]) == (URL, told["id"], "test")
    status, again = await asked(served, "POST", f"{path}/deliveries/{told['id']}/redeliver")
    assert (status, again["status"], again["id"]) == (200, "pending", told["id"])
    assert (await asked(served, "POST", f"{path}/resume"))[0] == 409
    assert (await asked(served, "DELETE", path))[0] == 204
    assert await asked(served, "GET", path) == (
        404,
        {
            "code": "webhook_not_found",
            "message": f"no webhook {made['webhook']['id']!r}",
            "retriable": False,
            "field": "webhook_id",
        },
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://127.0.0.1/in"}, "url"),
        ({"url": URL, "events": ["job_retrying"]}, "events"),
        ({"url": URL, "event": ["job_failed"]}, "event"),
        ({}, None),
    ],
)
async def test_what_cannot_be_is_refused_by_field(served: Served, body: dict[str, Any], field: str | None) -> None:
    status, said = await asked(served, "POST", "/api/webhooks", json=body)
    assert (status, said["code"]) == (400, "invalid_input")
    if field == "url":
        assert said["field"] == field
    assert (await asked(served, "GET", "/api/webhooks"))[1] == []


async def test_they_are_for_operators() -> None:
    async with serving(token="the-admin") as served:
        for role, status in ((Role.CLIENT, 403), (Role.VIEWER, 403), (Role.AGENT, 403), (Role.OPERATOR, 201)):
            _, token = await served.plane.access.create(Wanted(name=role.value, role=role))
            assert (await asked(served, "POST", "/api/webhooks", token, json={"url": URL}))[0] == status
