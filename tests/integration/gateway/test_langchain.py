"""LangChain, by its packages for OpenAI's and for Ollama's API, against an engine that speaks OpenAI's only."""

from collections.abc import AsyncIterator

import ollama
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.integration.gateway.door import Door
from tests.integration.gateway.engine import TOKENS, Asked, Engine, cut_after

TEXT = "".join(TOKENS)
MODEL = "smollm2-135m"
KEY = SecretStr("none")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture(autouse=True)
def telling_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
async def by_openai(door: Door) -> AsyncIterator[ChatOpenAI]:
    async with openai.DefaultAsyncHttpxClient() as http:
        yield ChatOpenAI(
            base_url=f"{door.url}/v1",
            api_key=KEY,
            model=MODEL,
            max_retries=0,
            http_async_client=http,
            stream_usage=True,
        )


@pytest.fixture
async def by_ollama(door: Door) -> AsyncIterator[ChatOllama]:
    chat = ChatOllama(base_url=door.url, model=MODEL, validate_model_on_init=False)
    yield chat
    await chat._async_client._client.aclose()


async def calls_add(asked: Asked) -> None:
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    asked.reply(
        {"id": "x", "model": MODEL, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    )


async def streams_add(asked: Asked) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    asked.head(content_type="text/event-stream")
    asked.event({"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]})
    asked.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    asked.event("[DONE]")
    asked.last_chunk()


async def test_langchain_chats_and_streams_by_openai(by_openai: ChatOpenAI):
    whole = await by_openai.ainvoke("Tell.")
    assert (whole.text, whole.response_metadata["finish_reason"]) == (TEXT, "stop")
    pieces = [piece async for piece in by_openai.astream("Tell.")]
    assert "".join(piece.text for piece in pieces) == TEXT
    usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage[-1]["output_tokens"] == len(TOKENS)


async def test_langchain_has_its_tools_called_by_openai(by_openai: ChatOpenAI, engine: Engine):
    engine.behaviour = calls_add
    asked = HumanMessage("1 + 2?")
    said = await by_openai.bind_tools([add]).ainvoke([asked])
    assert isinstance(said, AIMessage)
    assert [(call["name"], call["args"]) for call in said.tool_calls] == [("add", {"a": 1, "b": 2})]
    await by_openai.ainvoke([asked, said, ToolMessage("3", tool_call_id="c")])
    first, second = (request.json for request in engine.requests)
    assert first["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]


async def test_langchain_embeds_by_openai(door: Door):
    async with openai.DefaultAsyncHttpxClient() as http:
        embeddings = OpenAIEmbeddings(
            base_url=f"{door.url}/v1",
            api_key=KEY,
            model="minilm",
            check_embedding_ctx_length=False,  # which would fetch OpenAI's own table of tokens
            http_async_client=http,
        )
        assert await embeddings.aembed_documents(["a", "b"]) == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]


async def test_langchain_raises_when_a_stream_breaks_by_openai(by_openai: ChatOpenAI, engine: Engine):
    engine.behaviour = cut_after(2)
    with pytest.raises(openai.APIError, match="closed the connection"):
        async for _ in by_openai.astream("Tell."):
            pass


async def test_langchain_chats_and_streams_by_ollama(by_ollama: ChatOllama):
    whole = await by_ollama.ainvoke("Tell.")
    assert (whole.text, whole.response_metadata["done_reason"]) == (TEXT, "stop")
    pieces = [piece async for piece in by_ollama.astream("Tell.")]
    assert "".join(piece.text for piece in pieces) == TEXT


async def test_langchain_has_its_tools_called_by_ollama(by_ollama: ChatOllama, engine: Engine):
    engine.behaviour = streams_add
    asked = HumanMessage("1 + 2?")
    said = await by_ollama.bind_tools([add]).ainvoke([asked])
    assert isinstance(said, AIMessage)
    assert [(call["name"], call["args"]) for call in said.tool_calls] == [("add", {"a": 1, "b": 2})]
    await by_ollama.ainvoke([asked, said, ToolMessage("3", tool_call_id=said.tool_calls[0]["id"] or "")])
    first, second = (request.json for request in engine.requests)
    assert first["tools"][0]["function"]["name"] == "add"
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]


async def test_langchain_embeds_by_ollama(door: Door):
    embeddings = OllamaEmbeddings(base_url=door.url, model="minilm")
    assert embeddings._async_client is not None
    assert await embeddings.aembed_documents(["a", "b"]) == [[0.5, -0.25, 0.0], [0.5, -0.25, 1.0]]
    await embeddings._async_client._client.aclose()


async def test_langchain_raises_when_a_stream_breaks_by_ollama(by_ollama: ChatOllama, engine: Engine):
    engine.behaviour = cut_after(2)
    with pytest.raises(ollama.ResponseError, match="closed the connection"):
        async for _ in by_ollama.astream("Tell."):
            pass
