"""What the listing commands ask for and show."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

NODE = {
    "node_id": "gpu-1",
    "health_status": "degraded",
    "reason": "nvml does not answer",
    "phase": "ready",
    "draining": False,
    "last_seen_ms": 0,
    "gpu_count": 2,
    "gpus": [
        {
            "index": index,
            "name": "L4",
            "memory_total_mb": 23_034,
            "memory_used_mb": None,
            "simulated": True,
            "owners": [{"name": "blender", "memory_mb": 4_200}, {"name": "Xorg", "memory_mb": None}],
            "out_of_service": "too hot" if index else None,
        }
        for index in range(2)
    ],
    "loaded_models": ["smollm2"],
    "resources": {"memory_total_mb": 1024, "memory_used_mb": 512},
    "services": [
        {
            "name": "llama",
            "connector": "llamacpp",
            "status": "running",
            "models": [{"name": "smollm2"}],
            "figures": {"cpu_percent": 12.5, "rss_mb": 300.1, "uptime_s": 3661},
        },
        {"name": "found", "connector": "ollama", "status": "running", "models": [], "figures": None},
    ],
    "labels": {"zone": "a"},
}
WORKER = {"worker_id": "gpu-1-worker-0", "status": "busy", "slots": 1, "current_jobs": ["job-1"], "jobs_completed": 7}
MODEL = {
    "name": "smollm2",
    "capabilities": ["completion"],
    "size_bytes": 98_362_432,
    "nodes": [
        {"node_id": "gpu-1", "accepts_work": True, "reasons": []},
        {"node_id": "gpu-2", "accepts_work": False, "reasons": ["late by 40 s"]},
    ],
}
JOB: dict[str, Any] = {
    "job_id": "job-1",
    "service_required": "simulation",
    "status": "failed",
    "priority": 50,
    "attempt": 4,
    "retry_count": 3,
    "max_retries": 3,
    "created_at": 1_000_000,
    "started_at": 1_002_000,
    "completed_at": 1_005_000,
    "progress": {"fraction": 0.25, "message": "step 1"},
    "error": {"code": "worker_lost", "message": "its worker fell silent"},
}


@pytest.fixture
def fleet(plane: StubPlane) -> StubPlane:
    plane.on("GET", "/api/v1/nodes", Reply([NODE], headers={"X-Total-Count": "3"}))
    plane.on("GET", "/api/v1/nodes/gpu-1", Reply(NODE))
    plane.on("GET", "/api/v1/workers", Reply([WORKER], headers={"X-Total-Count": "1"}))
    plane.on("GET", "/api/v1/models", Reply([MODEL]))
    page = {"jobs": [JOB], "total": 2, "next_cursor": "c1", "counts": {"failed": 2, "pending": 0}}
    plane.on("GET", "/api/jobs", Reply(page))
    plane.on("GET", "/api/jobs/job-1", Reply({"job": JOB | {"payload": {"a": 1}, "result": None}}))
    return plane


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("nodes",), ["gpu-1", "degraded", "nvml does not answer", "2 x L4 (simulated)", "smollm2"]),
        (
            ("node", "gpu-1"),
            ["gpu-1", "unknown used of 23.0 GB", "blender", "too hot", "zone=a", "llamacpp"],
        ),
        (("workers",), ["gpu-1-worker-0", "busy", "job-1", "7"]),
        (("models",), ["smollm2", "98.4 MB", "completion", "gpu-2: late by 40 s"]),
        (("jobs",), ["job-1", "failed", "25% step 1", "its worker fell silent", "2 failed", "--cursor c1"]),
        (("job", "show", "job-1"), ["job-1", "4 (3 of 3 retries used)", "3.0 s", '{"a": 1}', "worker_lost"]),
    ],
)
def test_people_see_a_table(fleet: StubPlane, cli: Cli, command: tuple[str, ...], shown: list[str]) -> None:
    outcome = cli(*command)

    assert outcome.code == 0, outcome.err
    for text in shown:
        assert text in outcome.out


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("nodes",), [NODE]),
        (("node", "gpu-1"), NODE),
        (("workers",), [WORKER]),
        (("models",), [MODEL]),
    ],
)
def test_programs_get_what_the_control_plane_said(
    fleet: StubPlane, cli: Cli, command: tuple[str, ...], expected: object
) -> None:
    assert json.loads(cli(*command, "--json").out) == expected


def test_a_list_that_goes_on_says_how_to_see_more(fleet: StubPlane, cli: Cli) -> None:
    outcome = cli("nodes", "--limit", "1")

    assert "1 of 3; more: muster nodes --page 2" in outcome.out
    assert fleet.requests[0].query == {"page": "1", "limit": "1"}


def test_filters_reach_the_control_plane(fleet: StubPlane, cli: Cli) -> None:
    cli("jobs", "--status", "failed", "--limit", "5", "--cursor", "c0")
    cli("nodes", "--health", "dead", "--pool", "a")

    jobs, nodes = fleet.requests
    assert jobs.query == {"status": "failed", "limit": "5", "cursor": "c0"}
    assert nodes.query == {"page": "1", "limit": "100", "health": "dead", "pool": "a"}


def test_workers_are_asked_for_by_what_they_can(fleet: StubPlane, cli: Cli) -> None:
    cli("workers", "--idle", "--model", "smollm2", "--free-vram", "4GB")
    cli("workers", "--free-vram", "1.5 GiB")
    cli("workers", "--free-vram", "512")

    asked = [
        {name: request.query[name] for name in request.query if name not in {"page", "limit"}}
        for request in fleet.requests
    ]
    assert asked == [
        {"idle": "true", "model": "smollm2", "free_vram_mb": "4096"},
        {"free_vram_mb": "1536"},
        {"free_vram_mb": "512"},
    ]


def test_a_size_that_is_none_is_refused_in_words(fleet: StubPlane, cli: Cli) -> None:
    outcome = cli("workers", "--free-vram", "much")

    assert outcome.code != 0
    assert "must be like 4GB or 512MB" in outcome.err
    assert fleet.requests == []


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_acting_on_a_job_tells_its_new_status(plane: StubPlane, cli: Cli, action: str) -> None:
    plane.on("POST", f"/api/jobs/job-1/{action}", Reply({"job": JOB | {"status": "pending"}}))

    assert cli("job", action, "job-1").out == "job-1 is pending\n"


def test_explain_shows_what_each_class_of_workers_lacks(plane: StubPlane, cli: Cli) -> None:
    lacking = {"requirement": "gpu_memory_gb", "wanted": 21, "found": 18.3, "text": "needs 21 GB, has 18.3"}
    explanation = {
        "job_id": "job-1",
        "status": "unworkable",
        "summary": "nobody in the fleet can run it",
        "position": None,
        "can_run": [],
        "candidates": [{"class_id": "c-1", "sessions": 2, "mismatches": [lacking]}],
    }
    plane.on("GET", "/api/jobs/job-1/explain", Reply({"explanation": explanation}))

    people, programs = cli("job", "explain", "job-1"), cli("job", "explain", "job-1", "--json")

    assert "nobody in the fleet can run it" in people.out
    assert "needs 21 GB, has 18.3" in people.out
    assert json.loads(programs.out) == explanation


def test_an_error_is_a_sentence_and_a_next_step(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/jobs/x", Reply({"code": "job_not_found", "message": "there is no job x"}, 404))

    outcome = cli("job", "show", "x")

    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err == "muster: there is no job x\nNext: muster jobs lists what there is\n"


def test_an_unknown_setting_is_an_error_that_names_the_nearest(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_LISTN", "127.0.0.1:1")

    outcome = cli("nodes")

    assert outcome.code == 1
    assert "MUSTER_LISTEN" in outcome.err


def test_an_unknown_option_is_a_usage_error(cli: Cli) -> None:
    assert cli("nodes", "--nope").code == 2
    assert cli("jobs", "--status", "nope").code == 2
    assert cli("nope").code == 2


def test_a_traceback_is_shown_only_when_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_CONTROL_PLANE", "http://127.0.0.1:1")
    assert "Traceback" not in cli("nodes").err

    monkeypatch.setenv("MUSTER_DEBUG", "1")
    with pytest.raises(Exception, match="no control plane answers"):
        cli("nodes")


def test_a_fault_of_ours_is_a_sentence_too(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", "/api/v1/nodes", Reply([{"unexpected": True}]))

    outcome = cli("nodes")

    assert outcome.code == 1
    assert "something broke that should not: KeyError: 'node_id' (" in outcome.err
    assert "MUSTER_DEBUG=1" in outcome.err
    assert "Traceback" not in outcome.err
