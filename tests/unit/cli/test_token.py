"""Tokens on the command line: shown once, listed without their secrets."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

VIEW: dict[str, Any] = {
    "id": "abc",
    "name": "ci",
    "role": "client",
    "joins": False,
    "node_id": None,
    "requests_per_s": 2.5,
    "uses": 0,
    "uses_max": None,
    "created_at": 0,
    "expires_at": None,
    "expired": False,
    "last_used_at": None,
    "allowance": {},
    "used": None,
}


def test_a_made_token_is_alone_on_standard_output(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/v1/tokens", Reply({"token": "mst_abc_s3cret", "about": VIEW}, 201))

    outcome = cli("token", "create", "ci", "--role", "client", "--expires", "30d", "--rate", "2.5")

    assert outcome.out == "mst_abc_s3cret\n"
    assert "this once" in outcome.err
    (asked,) = plane.asked("/api/v1/tokens")
    assert asked.body == {
        "name": "ci",
        "role": "client",
        "expires_in_s": 2_592_000.0,
        "requests_per_s": 2.5,
        "node_id": None,
        "joins": False,
        "uses_max": None,
    }


def test_a_join_token_says_how_a_machine_uses_it(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/v1/tokens", Reply({"token": "mst_joinabc_s", "about": VIEW}, 201))

    outcome = cli("token", "create", "rack", "--role", "agent", "--join", "--uses", "8", "--expires", "1h")

    assert "muster agent" in outcome.err
    (asked,) = plane.asked("/api/v1/tokens")
    assert (asked.body["joins"], asked.body["uses_max"], asked.body["expires_in_s"]) == (True, 8, 3600)


def test_programs_get_the_token_with_what_is_known_about_it(plane: StubPlane, cli: Cli) -> None:
    made = {"token": "mst_abc_s3cret", "about": VIEW}
    plane.on("POST", "/api/v1/tokens", Reply(made, 201))

    assert json.loads(cli("token", "create", "ci", "--role", "client", "--json").out) == made


@pytest.mark.parametrize("text", ["", "30", "d", "x1d", "1w", "1 day"])
def test_a_time_that_is_none_is_refused_before_anything_is_asked(plane: StubPlane, cli: Cli, text: str) -> None:
    outcome = cli("token", "create", "ci", "--role", "client", "--expires", text)

    assert outcome.code == 1
    assert "30d" in outcome.err
    assert plane.requests == []


def test_the_list_tells_all_but_the_secret(plane: StubPlane, cli: Cli) -> None:
    far = 4_102_444_800_000
    rows = [
        VIEW,
        VIEW | {"id": "joinxyz", "role": "agent", "joins": True, "uses": 1, "uses_max": 3, "expires_at": far},
        VIEW | {"id": "nodeabc", "role": "agent", "node_id": "gpu-1", "requests_per_s": None},
        VIEW | {"id": "old", "expires_at": 1, "expired": True, "last_used_at": 1},
    ]
    plane.on("GET", "/api/v1/tokens", Reply(rows))

    shown = cli("token", "list").out

    for text in ("abc", "ci", "client", "2.5/s", "never", "1 of 3 joined", "gpu-1", "expired", "ago", "in "):
        assert text in shown
    assert json.loads(cli("token", "list", "--json").out) == rows


def test_without_tokens_the_list_says_how_to_begin(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/tokens", Reply([]))

    assert "--role admin" in cli("token", "list").out


def test_a_token_is_revoked_by_its_id(plane: StubPlane, cli: Cli) -> None:
    plane.on("DELETE", "/api/v1/tokens/abc", Reply(None, 204))

    outcome = cli("token", "revoke", "abc")

    assert (outcome.code, outcome.out) == (0, "abc is revoked.\n")


def test_a_refusal_names_the_next_step(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/tokens", Reply({"code": "forbidden", "message": "this needs admin"}, 403))

    outcome = cli("token", "list")

    assert outcome.code == 1
    assert "this needs admin" in outcome.err
    assert "MUSTER_TOKEN" in outcome.err


def test_a_token_is_made_with_what_it_may_use(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", "/api/v1/tokens", Reply({"token": "mst_abc_s", "about": VIEW}, 201))

    models = ("--model", "a*", "--model", "b", "--tokens-per-day", "500")
    cli("token", "create", "shop", "--role", "client", *models, "--weight", "2.5", "--priority", "0")

    (asked,) = plane.asked("/api/v1/tokens")
    assert asked.body["allowance"] == {
        "models": ["a*", "b"],
        "tokens_per_day": 500,
        "weight": 2.5,
        "priority": 0,
    }


def test_what_a_token_may_use_is_changed_as_a_whole(plane: StubPlane, cli: Cli) -> None:
    allowed = {"models": ["a*"], "requests_per_min": 6, "tokens_per_month": 9, "weight": 3.0, "priority": 0}
    used = {"tokens_today": 1, "tokens_this_month": 3, "requests_left": 6, "tokens_left": None}
    plane.on("PUT", "/api/v1/tokens/abc/allowance", Reply(VIEW | {"allowance": allowed, "used": used}), Reply(VIEW))

    limits = ("--model", "a*", "--requests-per-min", "6", "--tokens-per-month", "9")
    outcome = cli("token", "allow", "abc", *limits, "--weight", "3", "--priority", "0")
    assert outcome.out == "abc may use a*, 6 requests/min, 3 of 9 tokens this month, weight 3, priority 0.\n"
    (asked,) = plane.asked("/api/v1/tokens/abc/allowance")
    assert asked.body == allowed
    assert cli("token", "allow", "abc").out == "abc may use all models, as much as it wants.\n"
