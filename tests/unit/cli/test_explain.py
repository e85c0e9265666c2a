import json
from typing import Any

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

ANSWER: dict[str, Any] = {
    "chosen": "gpu-1/llama",
    "ranked": ["gpu-1/llama"],
    "summary": "gpu-1/llama would serve this; no other worker could",
    "refusal": None,
    "candidates": [
        {
            "key": "gpu-1/llama", "node_id": "gpu-1", "service": "llama", "url": "http://gpu-1:8000", "rank": 1,
            "resident": True, "slots": 4, "slots_busy": 1, "memory_free_mb": 18_000, "reasons": [],
        },
        {
            "key": "gpu-2/llama", "node_id": "gpu-2", "service": "llama", "url": "http://gpu-2:8000", "rank": None,
            "resident": None, "slots": None, "slots_busy": None, "memory_free_mb": None,
            "reasons": [{"filter": "draining", "reason": "is draining"}],
        },
    ],
}  # fmt: skip
EXPLANATION = {
    "job_id": "job-1",
    "status": "pending",
    "summary": "waits",
    "position": 2,
    "can_run": [],
    "candidates": [],
}


def test_a_model_is_explained_with_every_worker_and_why_it_cannot(cli: Cli, plane: StubPlane) -> None:
    plane.on("POST", "/api/v1/explain", Reply(ANSWER))
    shown = cli(
        "explain", "model", "smollm2", "--pool", "p", "--node", "gpu-1", "--label", "zone=a", "--min-memory-mb", "9"
    )
    assert plane.requests[-1].body == {
        "model": "smollm2",
        "capability": "completion",
        "pool": "p",
        "node_id": "gpu-1",
        "labels": {"zone": "a"},
        "min_memory_mb": 9,
    }
    assert ANSWER["summary"] in shown.out
    assert "3 of 4" in shown.out
    assert "is draining" in shown.out


def test_a_model_is_explained_to_programs_as_it_was_told(cli: Cli, plane: StubPlane) -> None:
    plane.on("POST", "/api/v1/explain", Reply(ANSWER))
    assert json.loads(cli("explain", "model", "smollm2", "--json").out) == ANSWER


def test_a_job_is_explained(cli: Cli, plane: StubPlane) -> None:
    plane.on("GET", "/api/jobs/job-1/explain", Reply({"success": True, "explanation": EXPLANATION}))
    assert "waits" in cli("explain", "job", "job-1").out
    assert json.loads(cli("explain", "job", "job-1", "--json").out) == EXPLANATION


def test_a_label_without_a_value_is_refused(cli: Cli) -> None:
    assert "KEY=VALUE" in cli("explain", "model", "m", "--label", "zone").err


def test_a_request_is_explained_with_its_wait_and_everybody_who_was_considered(cli: Cli, plane: StubPlane) -> None:
    attempt: dict[str, Any] = {
        "worker": "gpu-1/llama", "begun_s": 1.5, "ended_s": 2.0, "failure": "lost", "could_serve": 1, "could_not": 1,
        "why": "no other worker could serve it",
        "considered": [
            {"worker": "gpu-1/llama", "cost": 1.25, "in_flight": 1, "outside": 0, "slots": 4, "slowness": 1.0,
             "resident": True}
        ],
        "passed_over": [{"worker": "gpu-2/llama", "reason": "is draining"}],
    }  # fmt: skip
    told: dict[str, Any] = {
        "correlation_id": "req-1", "at_ms": 1, "path": "/v1/chat/completions", "model": "m", "strategy": "balanced",
        "status": 502, "error": "upstream_failed", "duration_s": 2.0,
        "waits": [
            {"what": "a machine for the model", "begun_s": 0.0, "ended_s": 0.5, "priority": None, "weight": None},
            {"what": "a free slot", "begun_s": 0.5, "ended_s": 1.5, "priority": 50, "weight": 2.5},
        ],
        "attempts": [attempt],
        "keeping": {"stream_id": "stream-1", "keep_s": 120.0, "kept": True, "taken_over": True},
    }  # fmt: skip
    plane.on("GET", "/api/v1/requests/req-1", Reply(told))
    shown = cli("explain", "request", "req-1").out
    for words in (
        "/v1/chat/completions for m ended with 502 after 2 s (upstream_failed)",
        "kept as stream-1 for 120 s without a reader, since its gateway was gone by this one",
        "it waited 0.5 s for a machine for the model\n",
        "it waited 1 s for a free slot, with priority 50 and weight 2.5",
        "gpu-1/llama was asked: no other worker could serve it; it failed: lost",
        "1.25",
        "gpu-2/llama is draining",
    ):
        assert words in shown
    assert json.loads(cli("explain", "request", "req-1", "--json").out) == told


def test_a_request_that_still_waits_is_explained(cli: Cli, plane: StubPlane) -> None:
    told: dict[str, Any] = {
        "correlation_id": "a b", "at_ms": 1, "path": "/api/chat", "model": "m", "strategy": "balanced", "status": None,
        "error": None, "duration_s": None, "attempts": [],
        "keeping": {"stream_id": "stream-1", "keep_s": 120.0, "kept": False, "taken_over": False},
        "waits": [{"what": "a free slot", "begun_s": 0.0, "ended_s": None, "priority": 50, "weight": 1.0}],
    }  # fmt: skip
    plane.on("GET", "/api/v1/requests/a%20b", Reply(told))
    shown = cli("explain", "request", "a b").out
    assert "/api/chat for m is being answered" in shown
    assert "it still waits for a free slot" in shown
    assert "it is not kept" in shown
