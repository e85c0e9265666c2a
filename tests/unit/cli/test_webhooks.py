"""Webhooks on the command line."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

HOOK: dict[str, Any] = {
    "id": "hook-1",
    "url": "https://receiver.example/in",
    "events": ["job_failed", "job_timeout"],
    "service": None,
    "customer_id": "acme",
    "workflow_id": None,
    "created_at": 0,
    "paused": "3 deliveries in a row failed",
    "paused_at": 5,
    "failed_in_row": 3,
    "waiting": 2,
}
DELIVERY: dict[str, Any] = {
    "id": "msg-1",
    "webhook_id": "hook-1",
    "type": "job_failed",
    "subject": "job-1",
    "event_id": "5-0",
    "status": "failed",
    "attempts": 10,
    "occurred_at": 0,
    "created_at": 0,
    "due_at": None,
    "ended_at": 1,
    "response_status": 500,
    "took_ms": 12,
    "error": "it answered 500",
}


def test_a_secret_is_alone_on_standard_output(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/webhooks", Reply({"secret": "whsec_x", "webhook": HOOK}, 201))

    outcome = cli(
        "webhooks", "create", HOOK["url"], "--event", "job_failed", "--event", "job_timeout", "--customer", "a"
    )

    assert outcome.out == "whsec_x\n"
    assert "hook-1" in outcome.err
    (asked,) = plane.asked("/api/webhooks")
    assert asked.body == {"url": HOOK["url"], "events": ["job_failed", "job_timeout"], "customer_id": "a"}


def test_the_list_says_why_one_is_paused(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/webhooks", Reply([HOOK]))

    out = " ".join(cli("webhooks", "list").out.split())

    for part in ("hook-1", "customer acme", "3 deliveries in a row failed"):
        assert part in out
    assert json.loads(cli("webhooks", "list", "--json").out) == [HOOK]


def test_deliveries_say_what_came_of_them(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/webhooks/hook-1/deliveries", Reply([DELIVERY]))
    out = cli("webhooks", "deliveries", "hook-1").out
    assert "msg-1" in out
    assert "it answered 500" in out


@pytest.mark.parametrize(("status", "code", "text"), [("delivered", 0, "it answered 204"), ("failed", 1, "no route")])
def test_a_test_says_what_came_of_it(plane: StubPlane, cli: Cli, status: str, code: int, text: str) -> None:
    told = DELIVERY | {"status": status, "response_status": 204, "error": None if code == 0 else "no route"}
    plane.on("POST", "/api/webhooks/hook-1/test", Reply(told))

    outcome = cli("webhooks", "test", "hook-1")

    assert outcome.code == code
    assert text in outcome.out


def test_the_rest_asks_what_it_says(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/webhooks/hook-1/deliveries/msg-1/redeliver", Reply(DELIVERY))
    plane.on("POST", "/api/webhooks/hook-1/resume", Reply(HOOK))
    plane.on("DELETE", "/api/webhooks/hook-1", Reply(None, 204))

    assert "msg-1" in cli("webhooks", "redeliver", "hook-1", "msg-1").out
    assert "goes on" in cli("webhooks", "resume", "hook-1").out
    assert "removed" in cli("webhooks", "remove", "hook-1").out
