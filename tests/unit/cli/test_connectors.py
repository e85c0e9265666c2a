"""Kinds of jobs on the command line."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

SCHEMA: dict[str, Any] = {"type": "object", "required": ["model"]}
OPENAI: dict[str, Any] = {
    "name": "openai",
    "provides": ["openai", "vllm"],
    "schema": SCHEMA,
    "available": [{"service": "openai", "workers": 2, "node_ids": ["a", "b"]}],
}
HTTP: dict[str, Any] = {
    "name": "http",
    "provides": ["http"],
    "schema": None,
    "available": [{"service": "http:thumbs", "workers": 1, "node_ids": None}],
}


@pytest.fixture(autouse=True)
def kinds(plane: StubPlane) -> None:
    plane.on("GET", "/api/connectors", Reply({"connectors": [OPENAI, HTTP], "broken": {"shout": "no module x"}}))


def test_they_are_listed_with_where_they_run(cli: Cli) -> None:
    shown = cli("connectors").out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "2 workers on a, b" in lines["openai"]
    assert lines["vllm"].split() == ["vllm", "openai", "-"]
    assert "1 worker" in lines["http:thumbs"]
    assert "shout cannot be used: no module x" in shown
    assert json.loads(cli("connectors", "--json").out)["connectors"] == [OPENAI, HTTP]


def test_one_is_shown_with_the_schema_of_its_payloads(cli: Cli) -> None:
    shown = cli("connectors", "show", "vllm").out
    assert "2 workers on a, b" in shown
    assert "nobody can run it now" in shown
    assert json.loads(shown[shown.index("{") :]) == SCHEMA
    assert json.loads(cli("connectors", "show", "openai", "--json").out) == OPENAI


def test_one_without_a_schema_and_one_that_is_none_are_said_to_be(cli: Cli) -> None:
    assert "does not know what its payloads look like" in cli("connectors", "show", "http:thumbs").out
    outcome = cli("connectors", "show", "nothing")
    assert outcome.code != 0
