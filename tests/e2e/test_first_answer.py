"""The main job on real input: one command, a real model, both dialects, a queued job, the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import ollama
import openai
import pytest

from tests.muster_process import ControlPlane
from tests.waiting import eventually_sync

MODEL = "smollm2-135m"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def serving(muster: ControlPlane) -> ControlPlane:
    """Wait until the model answers; the first run fetches it."""
    eventually_sync(lambda: MODEL in [model["id"] for model in muster.get("/v1/models")["data"]], 300)
    return muster


@pytest.fixture
def openai_client(serving: ControlPlane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def ollama_client(serving: ControlPlane) -> Iterator[ollama.Client]:
    with ollama.Client(host=serving.url) as client:
        yield client


def cli(muster: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return subprocess.run(
        [sys.executable, "-m", "muster.cli.main", *arguments],
        env=env | {"MUSTER_CONTROL_PLANE": muster.url},
        cwd=muster.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def cli_json(muster: ControlPlane, *arguments: str) -> Any:
    ran = cli(muster, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_openai_client_gets_a_true_answer(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=30,
        temperature=0,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_openai_client_streams(openai_client: openai.OpenAI) -> None:
    stream: Iterable[Any] = openai_client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=30,
        temperature=0,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 2


def test_ollama_client_chats_and_streams(ollama_client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 30}
    whole = ollama_client.chat(model=MODEL, messages=QUESTION, options=options)
    assert "Paris" in (whole.message.content or "")
    assert whole.done
    pieces = list(ollama_client.chat(model=MODEL, messages=QUESTION, options=options, stream=True))
    assert "Paris" in "".join(piece.message.content or "" for piece in pieces)
    assert [piece.done for piece in pieces].count(True) == 1
    assert pieces[-1].eval_count


def test_ollama_client_lists_shows_and_generates(ollama_client: ollama.Client) -> None:
    assert any((model.model or "").startswith(MODEL) for model in ollama_client.list().models)
    assert ollama_client.show(MODEL).capabilities
    assert any((model.model or "").startswith(MODEL) for model in ollama_client.ps().models)
    assert ollama_client.generate(model=MODEL, prompt="Say hello.", options={"num_predict": 8}).response


def test_an_unknown_model_is_refused_in_each_dialect(
    openai_client: openai.OpenAI, ollama_client: ollama.Client
) -> None:
    with pytest.raises(openai.NotFoundError):
        openai_client.chat.completions.create(model="gpt-17", messages=QUESTION)
    with pytest.raises(ollama.ResponseError, match="not found"):
        ollama_client.chat(model="gpt-17", messages=QUESTION)


def test_a_queued_job_runs_and_is_waited_for(serving: ControlPlane) -> None:
    ran = cli(serving, "submit", "simulation", "--payload", '{"duration_ms": 200, "result": {"n": 1}}', "--wait")
    assert ran.returncode == 0, ran.stderr
    failed = cli(
        serving,
        "submit",
        "simulation",
        "--payload",
        '{"duration_ms": 1, "fail_rate": 1}',
        "--max-retries",
        "0",
        "--wait",
    )
    assert failed.returncode == 1


def test_a_queued_chat_is_answered_by_the_model(serving: ControlPlane) -> None:
    payload = {"model": MODEL, "messages": QUESTION, "max_tokens": 30, "temperature": 0}
    job_id = serving.post("/api/jobs", {"service_required": "llamacpp", "payload": payload})["job_id"]
    job = eventually_sync(lambda: serving.job(job_id) if serving.job(job_id)["status"] == "completed" else None, 60)
    assert job is not None
    assert "Paris" in job["result"]["choices"][0]["message"]["content"]


def test_the_command_line_shows_the_machine(serving: ControlPlane) -> None:
    (node,) = cli_json(serving, "nodes")
    assert (node["node_id"], node["health_status"], node["phase"]) == ("this-machine", "healthy", "ready")
    assert [worker["worker_id"] for worker in cli_json(serving, "workers")] == ["this-machine-worker-0"]
    assert MODEL in [model["name"] for model in cli_json(serving, "models")]
    table = cli(serving, "nodes")
    assert "this-machine" in table.stdout
    chatted = cli(serving, "chat", MODEL, "What is the capital of France?", "--max-tokens", "24")
    assert chatted.returncode == 0
    assert chatted.stdout.strip()
