"""Models on the command line: what is asked for, and what is shown."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane
from tests.unit.cli.test_command import told

COPY = {
    "node_id": "n1",
    "state": "on_disk",
    "digest": "ab" * 32,
    "size_bytes": 5_000_000,
    "fraction": None,
    "fetched_at": 1,
    "last_used_at": None,
    "services": ["llama"],
    "pinned": True,
    "error": None,
}
ROW: dict[str, Any] = {
    "name": "hf:org/repo/m.gguf",
    "kind": "model",
    "replicated": True,
    "copies": [COPY, COPY | {"node_id": "n2", "state": "fetching", "fraction": 0.45, "services": [], "pinned": False}],
}
FAILED = {
    "name": "https://host/b.tgz",
    "kind": "bundle",
    "replicated": False,
    "copies": [COPY | {"state": "failed", "error": "404", "digest": None, "services": [], "pinned": False}],
}


def test_copies_are_listed_by_node(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/models", Reply([ROW, FAILED], headers={"X-Total-Count": "300"}))
    shown = cli("model", "ls", "--search", "org")
    assert plane.requests[-1].query == {"q": "org", "page": "1", "limit": "100"}
    for text in ("on disk", "fetching 45%", "5.0 MB", "abababababab", "used by llama; pinned", "404; a bundle"):
        assert text in shown.out
    assert "2 of 300 models; more: muster model ls --page 2" in shown.out


def test_of_one_node_only_its_own_copies_are_shown(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/models", Reply([ROW]))
    shown = cli("model", "ls", "--node", "n2")
    assert plane.requests[-1].query["node"] == "n2"
    assert "n1" not in shown.out
    assert json.loads(cli("model", "ls", "--json").out) == [ROW]


def test_no_models_say_how_to_get_one(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/models", Reply([]))
    assert "muster model pull" in cli("model", "ls").out


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--node", "n1, n2"], {"nodes": ["n1", "n2"]}),
        (["--pool", "p"], {"pool": "p"}),
        (["-l", "zone=a"], {"selector": "zone=a"}),
        (["--all", "--service", "ollama", "--timeout", "5", "--id", "mine"],
         {"all": True, "service": "ollama", "timeout": 5.0, "command_id": "mine"}),
    ],
)  # fmt: skip
def test_a_pull_says_what_and_where(plane: StubPlane, cli: Cli, words: list[str], body: dict[str, Any]) -> None:
    plane.on("POST", "/api/v1/models/pull", Reply(told("done", result={"path": "/x"}), 202))
    outcome = cli("model", "pull", "hf:org/repo", *words)
    assert outcome.code == 0
    assert plane.asked("/api/v1/models/pull")[0].body == {"model": "hf:org/repo"} | body
    assert json.loads(outcome.out) == {"path": "/x"}


@pytest.mark.parametrize(("command", "path"), [("copy", "copy"), ("rm", "remove")])
def test_copies_and_removals_go_their_own_way(plane: StubPlane, cli: Cli, command: str, path: str) -> None:
    plane.on("POST", f"/api/v1/models/{path}", Reply(told("failed", error="in use"), 202))
    outcome = cli("model", command, "hf:org/repo", "--node", "n1", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["commands"][0]["error"] == "in use"


@pytest.mark.parametrize("words", [[], ["--all", "--pool", "p"]])
def test_where_must_be_said_once(plane: StubPlane, cli: Cli, words: list[str]) -> None:
    outcome = cli("model", "pull", "hf:org/repo", *words)
    assert outcome.code == 1
    assert "say where: one of --node ID, --pool NAME, --selector LABELS and --all" in outcome.err
    assert plane.requests == []


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["load", "m"], {"model": "m"}),
        (["load", "m", "--node", "n1", "--service", "ollama"], {"model": "m", "nodes": ["n1"], "service": "ollama"}),
        (["unload", "m", "--all"], {"model": "m", "all": True}),
        (["pin", "m", "--pool", "p"], {"model": "m", "pool": "p"}),
        (["unpin", "m", "-l", "zone=a"], {"model": "m", "selector": "zone=a"}),
    ],
)
def test_memory_is_spoken_of_as_models_are(plane: StubPlane, cli: Cli, words: list[str], body: dict[str, Any]) -> None:
    plane.on("POST", f"/api/v1/models/{words[0]}", Reply(told("done", result={"model": "m"}), 202))
    assert cli("model", *words).code == 0
    assert plane.asked(f"/api/v1/models/{words[0]}")[0].body == body


@pytest.mark.parametrize("command", ["unload", "pin", "unpin"])
def test_where_something_is_taken_from_memory_or_kept_there_must_be_said(
    plane: StubPlane, cli: Cli, command: str
) -> None:
    outcome = cli("model", command, "m")
    assert (outcome.code, plane.requests) == (1, [])
    assert "say where" in outcome.err
