"""What every connector to a server that speaks OpenAI's API must do, on a real llama.cpp."""

import asyncio
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.connectors.engine import EngineLimits
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector
from muster.connectors.vllm import VllmConnector
from muster.domain.job import Progress
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, ModelNotFound, PayloadTooLarge, UpstreamFailed, UpstreamTimeout
from tests.contract.connectors.makers import NO_FILES, claimed, unheard
from tests.llama_server import LlamaServer, start_llama_server
from tests.waiting import eventually

KINDS = (OpenAIConnector, LlamaCppConnector, OllamaConnector, VllmConnector)
FIXED = {"temperature": 0, "seed": 1, "ignore_eos": True}
CHAT = FIXED | {"messages": [{"role": "user", "content": "the of and"}], "max_tokens": 12}
# Every token comes with the chances of all others, which takes the tiny model some seconds in all.
LONG_CHAT = CHAT | {"max_tokens": 1900, "logprobs": True, "top_logprobs": 270}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def connector(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> OpenAIConnector:
    kind: type[OpenAIConnector] = request.param
    return kind(session)


def service_of(server: LlamaServer) -> Service:
    return Service(
        name="tiny-server",
        connector="any",
        status=ServiceStatus.RUNNING,
        url=server.url,
        models=(Model(name=server.alias, capabilities=("completion", "embedding")),),
    )


def busy_slots(server: LlamaServer) -> int:
    with urllib.request.urlopen(f"{server.url}/slots", timeout=5) as answer:
        return sum(slot["is_processing"] for slot in json.load(answer))


async def test_a_chat_is_answered_whole_with_its_usage(connector: OpenAIConnector, llama: LlamaServer) -> None:
    answer = await connector.run(claimed(CHAT), service_of(llama), unheard, NO_FILES)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["model"] == "tiny"


async def test_a_streamed_answer_equals_the_one_sent_whole(llama: LlamaServer, session: aiohttp.ClientSession) -> None:
    body = CHAT | {"model": "tiny", "cache_prompt": False}
    streamed = await OpenAIConnector(session).run(claimed(body), service_of(llama), unheard, NO_FILES)
    async with session.post(f"{llama.url}/v1/chat/completions", json=body) as response:
        whole = await response.json()
    changing = {"id", "created", "timings"}
    assert {k: v for k, v in streamed.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }


async def test_a_completion_is_answered(connector: OpenAIConnector, llama: LlamaServer) -> None:
    payload = FIXED | {"prompt": "the of", "max_tokens": 5}
    answer = await connector.run(claimed(payload), service_of(llama), unheard, NO_FILES)
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == 5


async def test_an_embedding_is_answered_for_each_input(connector: OpenAIConnector, llama: LlamaServer) -> None:
    answer = await connector.run(claimed({"input": ["the of", "and to"]}), service_of(llama), unheard, NO_FILES)
    assert [len(entry["embedding"]) for entry in answer["data"]] == [64, 64]


async def test_progress_counts_tokens_and_knows_its_share(connector: OpenAIConnector, llama: LlamaServer) -> None:
    heard: list[Progress] = []
    await connector.run(claimed(CHAT), service_of(llama), heard.append, NO_FILES)
    assert heard
    assert heard[0].message == "1 tokens"
    assert heard[0].fraction == pytest.approx(1 / 12)


async def test_progress_without_a_known_end_has_no_share(connector: OpenAIConnector, llama: LlamaServer) -> None:
    heard: list[Progress] = []
    payload = FIXED | {"prompt": "the", "n_predict": 5}  # llama.cpp's own name for max_tokens
    await connector.run(claimed(payload), service_of(llama), heard.append, NO_FILES)
    assert heard[0].fraction is None


async def test_a_cancelled_job_ends_the_work_on_the_server(connector: OpenAIConnector, llama: LlamaServer) -> None:
    began = asyncio.Event()
    task = asyncio.create_task(connector.run(claimed(LONG_CHAT), service_of(llama), lambda _: began.set(), NO_FILES))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: busy_slots(llama) == 0)


async def test_a_model_that_the_service_lacks_is_refused(connector: OpenAIConnector, llama: LlamaServer) -> None:
    with pytest.raises(ModelNotFound, match="does not have the model huge; it has tiny") as refused:
        await connector.run(claimed(CHAT | {"model": "huge"}), service_of(llama), unheard, NO_FILES)
    assert not refused.value.retriable


async def test_too_long_a_prompt_is_the_jobs_own_fault(connector: OpenAIConnector, llama: LlamaServer) -> None:
    with pytest.raises(InvalidInput, match="exceeds the available context size") as refused:
        await connector.run(claimed({"prompt": "the " * 3000}), service_of(llama), unheard, NO_FILES)
    assert not refused.value.retriable


async def test_too_long_an_input_of_an_embedding_is_the_jobs_own_fault(
    connector: OpenAIConnector, llama: LlamaServer
) -> None:
    with pytest.raises(PayloadTooLarge, match="too large to process"):
        await connector.run(claimed({"input": "the " * 3000}), service_of(llama), unheard, NO_FILES)


async def test_an_option_that_the_engine_refuses_is_the_jobs_own_fault(
    connector: OpenAIConnector, llama: LlamaServer
) -> None:
    with pytest.raises(InvalidInput, match="400"):
        await connector.run(claimed(CHAT | {"temperature": "hot"}), service_of(llama), unheard, NO_FILES)


async def test_a_server_that_cannot_embed_says_so(
    connector: OpenAIConnector, tiny_model: Path, session: aiohttp.ClientSession
) -> None:
    with start_llama_server(tiny_model, embedding=False) as server:
        with pytest.raises(InvalidInput, match="does not support embeddings"):
            await connector.run(claimed({"input": "the"}), service_of(server), unheard, NO_FILES)
        found = await LlamaCppConnector(session).probe(server.url)
        assert found.models[0].capabilities == ("completion",)


async def test_a_server_killed_in_the_middle_lets_the_job_be_tried_again(
    connector: OpenAIConnector, tiny_model: Path
) -> None:
    with start_llama_server(tiny_model) as server:
        with pytest.raises(UpstreamFailed) as failed:
            await connector.run(claimed(LONG_CHAT), service_of(server), lambda _: server.kill(), NO_FILES)
        assert failed.value.retriable
        with pytest.raises(
            UpstreamFailed, match=r"cannot connect to http://127\.0\.0\.1:\d+/\S+: Connection refused$"
        ) as unreachable:
            await connector.run(claimed(CHAT), service_of(server), unheard, NO_FILES)
        assert unreachable.value.retriable


async def test_a_server_that_hangs_is_noticed_before_and_within_the_answer(
    session: aiohttp.ClientSession, tiny_model: Path
) -> None:
    connector = OpenAIConnector(session, EngineLimits(first_token_s=5.0, next_token_s=0.2))
    with start_llama_server(tiny_model) as server:
        with pytest.raises(UpstreamTimeout, match=r"next token within 0\.2 s"):
            await connector.run(
                claimed(LONG_CHAT), service_of(server), lambda _: server.process.send_signal(signal.SIGSTOP), NO_FILES
            )
        impatient = OpenAIConnector(session, EngineLimits(first_token_s=0.2, look_s=0.2))
        with pytest.raises(UpstreamTimeout, match=r"first token within 0\.2 s"):
            await impatient.run(claimed(CHAT), service_of(server), unheard, NO_FILES)
        with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
            await impatient.probe(server.url)
        server.kill()


async def test_llama_cpp_is_probed_with_its_slots_and_the_facts_of_its_model(
    llama: LlamaServer, session: aiohttp.ClientSession
) -> None:
    found = await LlamaCppConnector(session).probe(f"{llama.url}/v1/")
    assert (found.status, found.url, found.slots, found.slots_busy) == (ServiceStatus.RUNNING, llama.url, 2, 0)
    (model,) = found.models
    assert (model.name, model.resident, model.context_length) == ("tiny", True, 2048)
    assert (model.parameter_size, model.quantization) == ("118K", "F32")
    assert set(model.capabilities) >= {"completion", "embedding"}


async def test_llama_cpp_tells_how_many_slots_are_busy(llama: LlamaServer, session: aiohttp.ClientSession) -> None:
    connector = LlamaCppConnector(session)
    began = asyncio.Event()
    task = asyncio.create_task(connector.run(claimed(LONG_CHAT), service_of(llama), lambda _: began.set(), NO_FILES))
    await began.wait()
    found = await connector.probe(llama.url)
    assert found.slots_busy == 1
    task.cancel()
    await asyncio.wait([task])


async def test_any_server_is_probed_by_its_list_of_models(llama: LlamaServer, session: aiohttp.ClientSession) -> None:
    found = await OpenAIConnector(session).probe(llama.url)
    assert [model.name for model in found.models] == ["tiny"]
    assert found.slots is None


async def test_a_probe_of_nothing_says_that_it_cannot_connect(
    llama: LlamaServer, session: aiohttp.ClientSession
) -> None:
    for kind in KINDS:
        with pytest.raises(UpstreamFailed, match="cannot connect"):
            await kind(session).probe("http://127.0.0.1:9")


async def test_the_others_do_not_take_llama_cpp_for_theirs(llama: LlamaServer, session: aiohttp.ClientSession) -> None:
    others: list[Any] = [OllamaConnector, VllmConnector]
    for kind in others:
        with pytest.raises(UpstreamFailed):
            await kind(session).probe(llama.url)
