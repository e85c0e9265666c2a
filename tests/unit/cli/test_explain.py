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
