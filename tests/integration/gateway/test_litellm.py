"""LiteLLM, which cannot live beside the other clients: in the environment in which it is also measured."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from bench.environments import programs_of
from bench.gateway_peers import PROGRAMS, install

from tests.integration.gateway.door import Door
from tests.integration.gateway.engine import TOKENS

PROGRAM = Path(__file__).with_name("by_litellm.py")
TEXT = "".join(TOKENS)
ANSWER_S = 100


@pytest.mark.timeout(600)  # the first time it is fetched
async def test_litellm_speaks_openai_and_ollama_to_the_gateway(door: Door):
    (litellm,) = (program for program in PROGRAMS if program.name == "LiteLLM")
    missing = await asyncio.to_thread(install, litellm)
    if missing is not None:
        pytest.skip(f"LiteLLM {missing}")
    python = programs_of(litellm.name) / "python"
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    pipe = asyncio.subprocess.PIPE
    asking = await asyncio.create_subprocess_exec(
        python, "-I", PROGRAM, door.url, env=os.environ | quiet, stdout=pipe, stderr=pipe
    )
    try:
        said, complaints = await asyncio.wait_for(asking.communicate(), ANSWER_S)
    finally:
        if asking.returncode is None:
            asking.kill()
            await asking.wait()

    assert asking.returncode == 0, complaints.decode()
    answers = json.loads(said.splitlines()[-1])
    for dialect in ("openai", "ollama_chat"):
        answer = answers[dialect]
        assert (answer["whole"], answer["pieces"], answer["tokens"]) == (TEXT, TEXT, len(TOKENS))
    assert "no worker has a model 'nothing'" in answers["openai"]["refusal"]
    assert "not found, try pulling it first" in answers["ollama_chat"]["refusal"]
    assert answers["embedded"] == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
