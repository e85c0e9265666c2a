"""Queues, customers, schedules and replay on the command line."""

import json
from typing import Any

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

QUEUE: dict[str, Any] = {
    "name": "comfyui",
    "paused": True,
    "waiting": 7,
    "unworkable": 2,
    "running": 3,
    "oldest_age_s": 90.0,
    "submitted_per_min": 4.0,
    "completed_per_min": 3.5,
    "failed_per_min": 0.0,
}
CUSTOMER = {"customer_id": "acme inc", "weight": 3, "running_max": 8, "waiting_max": None, "waiting": 5, "running": 8}
SCHEDULE: dict[str, Any] = {
    "schedule_id": "nightly",
    "service_required": "simulation",
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "every_s": None,
    "missed": "last",
    "paused": False,
    "next_runs": [1_800_000_000_000],
    "last_at": None,
    "last_job_id": None,
}


def test_queues_are_listed_with_what_is_paused(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/queues", Reply({"queues": [QUEUE], "all_paused": False}))

    shown = cli("queues").out

    assert "comfyui" in shown
    assert "paused" in shown
    assert json.loads(cli("queues", "--json").out)["queues"] == [QUEUE]


def test_a_queue_is_paused_and_resumed(plane: StubPlane, cli: Cli) -> None:
    for action in ("pause", "resume"):
        plane.on("POST", f"/api/queues/comfyui/{action}", Reply({"queue": QUEUE}))

    assert cli("queues", "pause", "comfyui").out == "comfyui is paused\n"
    assert cli("queues", "resume", "comfyui").out == "comfyui goes on\n"


def test_a_customers_terms_are_set_and_forgotten(plane: StubPlane, cli: Cli) -> None:
    plane.on("PUT", "/api/customers/acme%20inc", Reply({"customer": CUSTOMER}))
    plane.on("DELETE", "/api/customers/acme%20inc", Reply(None, 204))
    plane.on("GET", "/api/customers", Reply({"customers": [CUSTOMER]}))

    assert cli("customers", "set", "acme inc", "--weight", "3", "--running-max", "8").code == 0
    (asked,) = plane.asked("/api/customers/acme%20inc")
    assert asked.body == {"weight": 3, "running_max": 8, "waiting_max": None}
    assert "acme inc" in cli("customers").out
    assert cli("customers", "forget", "acme inc").code == 0


def test_a_schedule_is_set_shown_and_paused(plane: StubPlane, cli: Cli) -> None:
    plane.on("PUT", "/api/schedules/nightly", Reply({"schedule": SCHEDULE}))
    plane.on("POST", "/api/schedules/nightly/pause", Reply({"schedule": SCHEDULE | {"paused": True, "next_runs": []}}))
    plane.on("GET", "/api/schedules", Reply({"schedules": [SCHEDULE]}))

    outcome = cli("schedules", "set", "nightly", "simulation", "--cron", "30 2 * * *", "--time-zone", "Europe/Berlin")

    assert outcome.code == 0
    (asked,) = plane.asked("/api/schedules/nightly")
    assert (asked.body["cron"], asked.body["job"]["service_required"]) == ("30 2 * * *", "simulation")
    assert "nightly" in cli("schedules").out
    assert "paused" in cli("schedules", "pause", "nightly").out


def test_replay_goes_on_until_all_were_looked_at_and_says_how_far_it_is(plane: StubPlane, cli: Cli) -> None:
    plane.on(
        "POST",
        "/api/jobs/replay",
        Reply({"job_ids": ["a", "b"], "looked_at": 500, "next_cursor": "on"}),
        Reply({"job_ids": ["c"], "looked_at": 20, "next_cursor": None}),
    )

    outcome = cli("job", "replay", "--code", "out_of_memory", "--json")

    assert json.loads(outcome.out) == {"replayed": 3, "looked_at": 520, "job_ids": ["a", "b", "c"]}
    assert "3 of 520 jobs" in outcome.err
    first, second = plane.asked("/api/jobs/replay")
    assert (first.body["cursor"], second.body["cursor"]) == (None, "on")
    assert first.body["code"] == "out_of_memory"


def test_one_job_is_replayed_by_its_id(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/jobs/job-1/retry", Reply({"job": {"job_id": "job-1", "status": "pending"}}))

    assert cli("job", "replay", "job-1").out == "job-1 is pending\n"
