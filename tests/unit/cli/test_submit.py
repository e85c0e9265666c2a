import io
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

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


def test_what_it_waits_for_belongs_to_and_tells_is_sent(queue: StubPlane, cli: Cli) -> None:
    options = "--after a --after b --after-any-end --workflow w --workflow-priority 70 --step 2 --deadline-s 60"
    cli("submit", "simulation", *options.split(), "--webhook-url", "https://x.example/in", "--idempotency-key", "k")

    assert queue.requests[0].body == {
        "service_required": "simulation",
        "payload": {},
        "priority": 50,
        "depends_on": ["a", "b"],
        "on_failure": "run",
        "workflow_id": "w",
        "workflow_priority": 70,
        "step_number": 2,
        "deadline_s": 60.0,
        "webhook_url": "https://x.example/in",
        "idempotency_key": "k",
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
