import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane, sse

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
ACCEPTED = Reply({"job_id": "job-1", "created": True, "job": JOB}, 201)


@pytest.fixture
def queue(plane: StubPlane) -> StubPlane:
    plane.on("POST", "/api/jobs", ACCEPTED)
    return plane


class Silence:
    """A stream that stays open and says nothing more until the test is over."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def after(self, *frames: bytes) -> Iterator[bytes]:
        yield from frames
        self._over.wait(30)


def ends_as(queue: StubPlane, status: str) -> dict[str, Any]:
    ended = JOB | {"status": status, "attempt": 1, "result": {"n": 1}}
    queue.on("GET", "/api/jobs/job-1", Reply({"job": ended}))
    steps = [
        {"type": "job_update", "job": JOB | {"status": "assigned"}},
        {"type": "job_progress", "job_id": "job-1", "progress": {"fraction": 0.5, "message": "half"}},
        {"type": "job_update", "job": ended},
    ]
    queue.on("GET", "/api/jobs/job-1/progress", Reply(frames=sse(*steps)))
    return ended


def test_a_submitted_job_is_named_with_how_to_look_at_it(queue: StubPlane, cli: Cli) -> None:
    outcome = cli("submit", "simulation")

    assert outcome.code == 0
    assert "job-1 is pending" in outcome.out
    assert "muster job show job-1" in outcome.out
    assert queue.requests[0].body == {"service_required": "simulation", "payload": {}, "priority": 50}


def test_everything_that_was_asked_for_is_sent(queue: StubPlane, cli: Cli) -> None:
    options = "--priority 90 --max-retries 1 --timeout-s 30 --id mine --customer c --require-gpu-memory-gb 8"
    models = "--require-model a --require-model b --require-label zone=x --payload"
    cli("submit", "llamacpp", *options.split(), *models.split(), '{"prompt": "hi"}')

    assert queue.requests[0].body == {
        "service_required": "llamacpp",
        "payload": {"prompt": "hi"},
        "priority": 90,
        "max_retries": 1,
        "timeout_s": 30.0,
        "id": "mine",
        "customer_id": "c",
        "requirements": {"models": ["a", "b"], "hardware": {"gpu_memory_gb": 8.0}, "labels": {"zone": "x"}},
    }


def test_a_payload_comes_from_a_file_or_standard_input(
    queue: StubPlane, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "payload.json").write_text('{"from": "file"}')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "stdin"}'))

    cli("submit", "simulation", "--payload", "@payload.json")
    cli("submit", "simulation", "--payload", "-")

    assert [request.body["payload"]["from"] for request in queue.requests] == ["file", "stdin"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--payload", "{"),
        ("--payload", "@absent.json"),
        ("--priority", "101"),
        ("--require-label", "zone"),
        ("--max-retries", "-1"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    queue: StubPlane, cli: Cli, arguments: tuple[str, str]
) -> None:
    assert cli("submit", "simulation", *arguments).code == 2
    assert queue.requests == []


def test_an_id_that_was_known_is_said(queue: StubPlane, cli: Cli) -> None:
    queue.on("POST", "/api/jobs", Reply({"job_id": "job-1", "created": False, "job": JOB}))

    assert "nothing was changed" in cli("submit", "simulation", "--id", "job-1").out


def test_waiting_shows_the_way_and_the_result(queue: StubPlane, cli: Cli) -> None:
    ends_as(queue, "completed")

    outcome = cli("submit", "simulation", "--wait")

    assert outcome.code == 0
    assert outcome.err.splitlines() == ["job-1 assigned", "job-1 assigned 50% half", "job-1 completed"]
    assert '{"n": 1}' in outcome.out


def test_a_stream_that_falls_silent_is_opened_anew(queue: StubPlane, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = ends_as(queue, "completed")
    monkeypatch.setattr("muster.cli.submit._LOOK_AGAIN_S", 0.2)
    with Silence() as silence:
        silent = Reply(frames=silence.after(*sse({"type": "job_update", "job": JOB})))
        queue.on("GET", "/api/jobs/job-1/progress", silent, Reply(frames=sse({"type": "job_update", "job": ended})))

        assert cli("submit", "simulation", "--wait").code == 0


@pytest.mark.parametrize("status", ["failed", "timeout", "cancelled"])
def test_waiting_for_a_job_that_does_not_complete_fails(queue: StubPlane, cli: Cli, status: str) -> None:
    ends_as(queue, status)

    assert cli("submit", "simulation", "--wait").code == 1


def test_waiting_can_answer_a_program(queue: StubPlane, cli: Cli) -> None:
    ended = ends_as(queue, "completed")

    assert json.loads(cli("submit", "simulation", "--wait", "--json").out) == ended


def test_a_wait_that_takes_too_long_says_where_to_look(queue: StubPlane, cli: Cli) -> None:
    queue.on("GET", "/api/jobs/job-1/progress", Reply(frames=sse({"type": "job_update", "job": JOB})))
    queue.on("GET", "/api/jobs/job-1", Reply({"job": JOB}))

    outcome = cli("submit", "simulation", "--wait", "--wait-timeout-s", "1")

    assert outcome.code == 1
    assert "still pending after 1 s" in outcome.err
    assert "muster job explain job-1" in outcome.err
