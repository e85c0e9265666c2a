"""Commands to nodes on the command line: what is asked for, what is shown, and what the exit code says."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane


def told(state: str, *nodes: str, **more: Any) -> dict[str, Any]:
    return {
        "success": True,
        "command_id": "cmd-1",
        "created": True,
        "command": "status",
        "state": state,
        "counts": {state: len(nodes)},
        "commands": [
            {
                "command_id": f"cmd-1:{node}",
                "node_id": node,
                "command": "status",
                "args": {},
                "state": state,
                "issued_by": "ops",
                "created_at": "2026-01-01T00:00:00.000Z",
                "progress": None,
                "result": None,
                "error": None,
            }
            | more
            for node in nodes or ("gpu-1",)
        ],
    }


@pytest.fixture
def fleet(plane: StubPlane) -> StubPlane:
    plane.on("POST", "/api/v1/command", Reply(told("created"), 202))
    plane.on("GET", "/api/v1/commands/cmd-1", Reply(told("acked")), Reply(told("done", result={"phase": "ready"})))
    return plane


def asked(fleet: StubPlane) -> Any:
    (request,) = fleet.asked("/api/v1/command")
    return request.body


def test_a_command_is_sent_and_its_result_shown(fleet: StubPlane, cli: Cli) -> None:
    outcome = cli("command", "gpu-1", "status")
    assert outcome.code == 0
    assert asked(fleet) == {"node_id": "gpu-1", "command": "status", "args": {}}
    assert json.loads(outcome.out) == {"phase": "ready"}
    assert outcome.err == "gpu-1: status done\n"
    assert len(fleet.asked("/api/v1/commands/cmd-1")) == 2


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["*", "status"], {"node_id": "*", "command": "status", "args": {}}),
        (["a,b", "status"], {"nodes": ["a", "b"], "command": "status", "args": {}}),
        (["-l", "zone=a,gpu", "status"], {"selector": "zone=a,gpu", "command": "status", "args": {}}),
        (
            ["a", "logs", "service=llama", "lines=5"],
            {"node_id": "a", "command": "logs", "args": {"service": "llama", "lines": 5}},
        ),
        (["a", "logs", "llama", "5"], {"node_id": "a", "command": "logs", "args": {"service": "llama", "lines": 5}}),
        (
            ["a", "exec", "df", "args=-h '/a b'"],
            {"node_id": "a", "command": "exec", "args": {"name": "df", "args": ["-h", "/a b"]}},
        ),
        (
            ["a", "shutdown", "reason=x=y", "--timeout", "5", "--id", "mine"],
            {
                "node_id": "a",
                "command": "shutdown",
                "args": {"reason": "x=y"},
                "timeout": 5.0,
                "command_id": "mine",
            },
        ),
        (["a", "PULL_MODEL", "hf.co/a=b"], {"node_id": "a", "command": "PULL_MODEL", "args": {"model": "hf.co/a=b"}}),
    ],
)
def test_words_become_a_request(fleet: StubPlane, cli: Cli, words: list[str], body: dict[str, Any]) -> None:
    assert cli("command", *words).code == 0
    assert asked(fleet) == body


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["status"], "say which node and which command"),
        (["a", "explode"], "there is no command 'explode'"),
        (["a", "logs", "llama", "many"], "lines must be a number, got 'many'"),
        (["a", "status", "loud"], "status takes no arguments; 'loud' is one too many"),
        (["a", "logs", "x", "5", "y"], "logs takes service, lines; 'y' is one too many"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(
    fleet: StubPlane, cli: Cli, words: list[str], problem: str
) -> None:
    outcome = cli("command", *words)
    assert outcome.code == 1
    assert problem in outcome.err
    assert not fleet.requests


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_the_exit_code_is_0_only_if_it_was_done(fleet: StubPlane, cli: Cli, state: str) -> None:
    fleet.on("GET", "/api/v1/commands/cmd-1", Reply(told(state, error="no such service")))
    outcome = cli("command", "gpu-1", "status")
    assert outcome.code == 1
    assert f"gpu-1: status {state}: no such service" in outcome.err


def test_several_nodes_have_a_line_each(fleet: StubPlane, cli: Cli) -> None:
    fleet.on("GET", "/api/v1/commands/cmd-1", Reply(told("done", "a", "b", result={"phase": "ready"})))
    outcome = cli("command", "*", "status")
    assert outcome.code == 0
    assert [line.split()[:2] for line in outcome.out.splitlines() if "done" in line] == [["a", "done"], ["b", "done"]]


def test_without_waiting_only_the_id_is_told(fleet: StubPlane, cli: Cli) -> None:
    outcome = cli("command", "gpu-1", "status", "--no-wait")
    assert (outcome.code, outcome.out) == (0, "cmd-1 sent to 1 node(s)\n")
    assert not fleet.asked("/api/v1/commands/cmd-1")


def test_json_is_the_last_answer_whole(fleet: StubPlane, cli: Cli) -> None:
    assert json.loads(cli("command", "gpu-1", "status", "--json").out)["state"] == "done"
    fleet.on("GET", "/api/v1/commands/cmd-1", Reply(told("failed")))
    assert cli("command", "gpu-1", "status", "--json").code == 1


def test_lines_and_output_are_shown_as_they_are(fleet: StubPlane, cli: Cli) -> None:
    fleet.on("GET", "/api/v1/commands/cmd-1", Reply(told("done", result={"lines": ["one [b]", "two"]})))
    assert cli("command", "gpu-1", "logs", "llama").out == "one [b]\ntwo\n"
    fleet.on("GET", "/api/v1/commands/cmd-1", Reply(told("done", result={"exit_code": 0, "output": "free: 5\n"})))
    assert cli("command", "gpu-1", "exec", "df").out == "free: 5\n"


def test_drain_and_resume_are_commands_with_a_name_of_their_own(fleet: StubPlane, cli: Cli) -> None:
    assert cli("drain", "gpu-1", "--reason", "new disks").code == 0
    assert asked(fleet) == {"node_id": "gpu-1", "command": "drain", "args": {"reason": "new disks"}}
    fleet.requests.clear()
    assert cli("resume", "*").code == 0
    assert asked(fleet) == {"node_id": "*", "command": "resume", "args": {}}


def test_commands_are_listed(fleet: StubPlane, cli: Cli) -> None:
    row = told("acked", args={"service": "llama"}, progress={"fraction": 0.5, "message": "half"})["commands"][0]
    fleet.on("GET", "/api/v1/commands", Reply([row], headers={"X-Total-Count": "3"}))
    outcome = cli("commands", "--node", "gpu-1", "--state", "acked", "--limit", "1")
    assert fleet.asked("/api/v1/commands")[0].query == {
        "node": "gpu-1",
        "state": "acked",
        "page": "1",
        "limit": "1",
    }
    assert "status service=llama" in outcome.out
    assert "acked: half" in outcome.out
    assert "more: muster commands --page 2" in outcome.out
    assert json.loads(cli("commands", "--json").out) == [row]
    fleet.on("GET", "/api/v1/commands", Reply([], headers={"X-Total-Count": "0"}))
    assert "No commands." in cli("commands").out


def test_a_refusal_is_told_with_the_next_step(fleet: StubPlane, cli: Cli) -> None:
    problem = {"code": "node_not_found", "message": "no node 'gpu-9' in this fleet", "retriable": False}
    fleet.on("POST", "/api/v1/command", Reply(problem, 404))
    outcome = cli("command", "gpu-9", "status")
    assert outcome.code == 1
    assert "no node 'gpu-9'" in outcome.err
    assert "muster nodes lists what there is" in outcome.err
