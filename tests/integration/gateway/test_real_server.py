"""The official clients of three dialects through the gateway, answered by a real llama.cpp server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from muster.domain.model import Model
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.llama_server import LlamaServer, start_llama_server
from tests.tiny_model import make_tiny_model

MODEL = "tiny"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    model: Path = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with start_llama_server(model, alias=MODEL) as server:
        yield server


@pytest.fixture
async def real_door(llama: LlamaServer) -> AsyncIterator[Door]:
    model = Model(name=MODEL, resident=True, capabilities=("completion", "embedding"))
    async with opened(FleetTwin(worker(llama.url, "node-a", model))) as door:
        yield door


@pytest.fixture
async def openai_client(real_door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{real_door.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(real_door: Door) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=real_door.url, api_key="none", max_retries=0) as client:
        yield client


async def test_anthropics_client_writes_and_counts(anthropic_client: anthropic.AsyncAnthropic) -> None:
    said: list[anthropic.types.MessageParam] = [{"role": "user", "content": "the of and"}]
    whole = await anthropic_client.messages.create(model=MODEL, max_tokens=4, messages=said)
    assert whole.stop_reason in {"max_tokens", "end_turn"}
    assert whole.usage.output_tokens > 0
    # Of an answer that begins with half a letter, as this model's may, llama.cpp leaves out the first event.
    stream = await anthropic_client.messages.create(model=MODEL, max_tokens=4, messages=said, stream=True)
    assert [event.type async for event in stream][-1] == "message_stop"
    assert (await anthropic_client.messages.count_tokens(model=MODEL, messages=said)).input_tokens > 0
    assert [model.id async for model in anthropic_client.models.list()] == [MODEL]
    assert (await anthropic_client.models.retrieve(MODEL)).display_name == MODEL


async def test_anthropics_client_raises_its_own_errors(anthropic_client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nothing"):
        await anthropic_client.messages.create(
            model="nothing", max_tokens=4, messages=[{"role": "user", "content": "the"}]
        )


async def test_openais_client_gets_responses(openai_client: openai.AsyncOpenAI) -> None:
    whole = await openai_client.responses.create(model=MODEL, input="the of and", max_output_tokens=4, temperature=0)
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    stream = await openai_client.responses.create(
        model=MODEL, input="the of and", max_output_tokens=4, temperature=0, stream=True
    )
    kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_openais_client_is_told_what_this_server_does_not_have(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="serves /v1/images/generations") as missing:
        await openai_client.images.generate(model=MODEL, prompt="a cat")
    assert missing.value.code == "path_not_served"
    with pytest.raises(openai.NotFoundError, match="does not support audio"):
        await openai_client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF"))
