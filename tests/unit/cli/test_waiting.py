"""Waiting at the keyboard: `submit --wait`, `job watch`, `map`."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.made_server import MadeServer, Said, Script, Talk
from tests.unit.cli.conftest import Cli

JOB: dict[str, Any] = {
    "job_id": "job-1",
    "service_required": "simulation",
    "status": "pending",
    "priority": 50,
    "attempt": 0,
    "retry_count": 0,
    "max_retries": 3,
    "created_at": 1,
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeServer]:
    monkeypatch.setattr("muster.client.connection._PAUSE_S", 0.001)
    with MadeServer() as server:
        monkeypatch.setenv("MUSTER_CONTROL_PLANE", server.url)
        server.on("POST", "/api/jobs", Said({"job_id": "job-1", "created": True, "job": JOB}, 201))
        yield server


def ends_as(made: MadeServer, status: str, *before: Script) -> dict[str, Any]:
    ended = JOB | {"status": status, "attempt": 1, "result": {"n": 1}}

    async def goes(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.complete(ended, result={"n": 1})
        await talk.rest()

    made.on("GET", "/api/jobs/job-1", Said({"job": ended}))
    made.talks_as(*before, goes)
    return ended


def stays(**more: Any) -> Script:
    """Say how the job is, and no more."""

    async def quiet(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.update(JOB | more)
        await talk.rest()

    return quiet


def test_the_result_is_shown(made: MadeServer, cli: Cli) -> None:
    ends_as(made, "completed")

    outcome = cli("submit", "simulation", "--wait")

    assert outcome.code == 0
    assert outcome.err.splitlines() == ["job-1 completed"]
    assert '{"n": 1}' in outcome.out


def test_the_way_is_shown(made: MadeServer, cli: Cli) -> None:
    async def moves(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.update(JOB | {"status": "in_progress", "progress": {"fraction": 0.5, "message": "half"}})

    ends_as(made, "completed", moves)

    assert cli("submit", "simulation", "--wait").err.splitlines() == ["job-1 in_progress 50% half", "job-1 completed"]


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("timeout", 3), ("cancelled", 4)])
@pytest.mark.parametrize("command", [("submit", "simulation", "--wait"), ("job", "watch", "job-1")])
def test_the_exit_code_says_how_it_ended(
    made: MadeServer, cli: Cli, command: tuple[str, ...], status: str, code: int
) -> None:
    ends_as(made, status)

    assert cli(*command).code == code


def test_waiting_can_answer_a_program(made: MadeServer, cli: Cli) -> None:
    ended = ends_as(made, "completed")

    assert json.loads(cli("submit", "simulation", "--wait", "--json").out) == ended


def test_a_wait_that_takes_too_long_says_where_to_look(made: MadeServer, cli: Cli) -> None:
    made.talks_as(stays())

    outcome = cli("submit", "simulation", "--wait", "--wait-timeout-s", "1")

    assert outcome.code == 5
    assert "still pending after 1 s" in outcome.err
    assert "muster job explain job-1" in outcome.err


def test_a_refusal_says_what_to_do(made: MadeServer, cli: Cli) -> None:
    async def shut(talk: Talk) -> None:
        await talk.socket.close(code=1008, message=b"this needs a token")

    made.talks_as(shut)

    outcome = cli("job", "watch", "job-1")

    assert outcome.code == 1
    assert "this needs a token" in outcome.err


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C as soon as something is shown."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    made.talks_as(stays())
    monkeypatch.setattr("muster.cli.waiting._Display.show", interrupt)
    made.on("POST", "/api/jobs/job-1/cancel", Said({"job": JOB | {"status": "cancelled"}}))


@pytest.mark.parametrize(("answer", "cancelled"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_who_leaves_is_asked_whether_the_job_shall_end(
    made: MadeServer, interrupted: None, cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, cancelled: int
) -> None:
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True  # type: ignore[method-assign]  # a person sits there
    monkeypatch.setattr("sys.stdin", stdin)

    outcome = cli("submit", "simulation", "--wait")

    assert outcome.code == 130
    assert "Cancel job-1 as well?" in outcome.err
    assert len(made.asked("/api/jobs/job-1/cancel")) == cancelled
    assert ("goes on" in outcome.err) is not bool(cancelled)


def test_where_nobody_can_answer_the_job_goes_on(made: MadeServer, interrupted: None, cli: Cli) -> None:
    outcome = cli("submit", "simulation", "--wait")

    assert outcome.code == 130
    assert "muster job cancel job-1" in outcome.err
    assert made.asked("/api/jobs/job-1/cancel") == []


# --- map --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mapped(made: MadeServer) -> MadeServer:
    """Complete all but those whose id ends with 3, in reverse order."""

    async def completes(talk: Talk) -> None:
        await talk.greet()
        while True:
            for job_id in reversed((await talk.hear()).get("job_ids", ())):
                ok = not job_id.endswith("3")
                error = None if ok else {"code": "broke", "message": "it broke"}
                job = JOB | {"job_id": job_id, "status": "completed" if ok else "failed", "error": error}
                await talk.complete(job, result=job_id if ok else None)

    made.talks_as(completes)
    return made


def taken(made: MadeServer, *sizes: int) -> None:
    numbers = iter(range(sum(sizes)))
    batches = [{"jobs": [{"job_id": f"job-{next(numbers)}"} for _ in range(size)]} for size in sizes]
    made.on("POST", "/api/jobs/batch", *map(Said, batches))


def test_each_line_becomes_a_job_and_each_job_a_line(mapped: MadeServer, cli: Cli, home: Any) -> None:
    (home / "in.jsonl").write_text('{"n": 0}\n\n{"n": 1}\n{"n": 2}\n')
    taken(mapped, 3)

    outcome = cli("map", "simulation", "in.jsonl", "--priority", "7")

    assert outcome.code == 0
    assert [json.loads(line)["result"] for line in outcome.out.splitlines()] == ["job-0", "job-1", "job-2"]
    assert "3 of 3 completed" in outcome.err
    jobs = mapped.asked("/api/jobs/batch")[0].body["jobs"]
    assert [(job["payload"]["n"], job["priority"]) for job in jobs] == [(0, 7), (1, 7), (2, 7)]


def test_one_that_failed_is_told_and_counts(
    mapped: MadeServer, cli: Cli, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n3\n4\n5\n"))
    taken(mapped, 5)

    outcome = cli("map", "simulation", "-", "--output", "out.jsonl")

    assert outcome.code == 1
    assert "4 of 5 completed" in outcome.err
    fourth = json.loads((home / "out.jsonl").read_text().splitlines()[3])
    assert fourth == {
        "job_id": "job-3",
        "status": "failed",
        "result": None,
        "error": {"code": "broke", "message": "it broke"},
    }


@pytest.mark.parametrize(("file", "code", "said"), [("bad.jsonl", 1, "line 2 of bad.jsonl"), ("none.jsonl", 2, "none")])
def test_a_file_that_cannot_be_read_is_said(
    mapped: MadeServer, cli: Cli, home: Any, file: str, code: int, said: str
) -> None:
    (home / "bad.jsonl").write_text("1\n{\n")
    outcome = cli("map", "simulation", file)

    assert outcome.code == code
    assert said in outcome.err
