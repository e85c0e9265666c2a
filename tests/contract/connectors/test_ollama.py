"""Jobs in Ollama's own API, and jobs of OpenAI's that an Ollama runs."""

import json
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.ollama import OllamaConnector
from muster.domain.job import Progress
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, NotFound, UpstreamFailed
from tests.contract.connectors.makers import NO_FILES, claimed, unheard
from tests.contract.connectors.test_odd_servers import Handler, serving

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
END = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 2, "total_duration": 5}


def lines(*values: Any, seen: list[Any] | None = None, status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(await request.json())
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        with suppress(ConnectionError):
            for value in values:
                await response.write(json.dumps(value).encode() + b"\n")
        return response

    return answer


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m:latest", "message": {"role": "assistant", "content": text} | more, "done": False}


async def run(
    session: aiohttp.ClientSession, payload: Any, report: Any = unheard, service: str = "ollama", **answers: Any
) -> Any:
    async with serving(**answers) as url:
        models = (Model(name="m:latest", capabilities=("completion",)),)
        at = Service(name="mine", connector="ollama", status=ServiceStatus.RUNNING, url=url, models=models)
        return await OllamaConnector(session).run(claimed(payload, service), at, report, NO_FILES)


async def test_a_chat_is_put_together_and_says_what_it_cost(session: aiohttp.ClientSession) -> None:
    seen: list[Any] = []
    heard: list[Progress] = []
    end = said("") | END
    answer = lines(said("", thinking="hm"), said("Hel"), said("lo"), end, seen=seen)
    payload = CHAT | {"options": {"num_predict": 4}, "keep_alive": "10m", "stream": True}
    result = await run(session, payload, heard.append, api__chat=answer)
    assert result["message"] == {"role": "assistant", "content": "Hello", "thinking": "hm"}
    assert result["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert (result["done_reason"], result["total_duration"]) == ("stop", 5)
    assert seen == [CHAT | {"options": {"num_predict": 4}, "keep_alive": "10m", "model": "m:latest", "stream": True}]
    assert (heard[0].fraction, heard[0].message, heard[0].text) == (0.25, "1 tokens", "")


async def test_calls_of_tools_are_kept(session: aiohttp.ClientSession) -> None:
    call = {"function": {"name": "look", "arguments": {"at": "it"}}}
    result = await run(session, CHAT, api__chat=lines(said("", tool_calls=[call]), said("") | END))
    assert result["message"]["tool_calls"] == [call]


async def test_a_text_is_put_together(session: aiohttp.ClientSession) -> None:
    answer = lines({"response": "once"}, {"response": " upon"}, {"response": "", **END, "context": [1]})
    result = await run(session, {"prompt": "tell", "raw": True}, api__generate=answer)
    assert (result["response"], result["usage"]["total_tokens"]) == ("once upon", 9)


async def test_an_embedding_is_one_answer(session: aiohttp.ClientSession) -> None:
    answer = lines({"embeddings": [[1.0]], "prompt_eval_count": 3})
    async with serving(api__embed=answer) as url:
        at = Service(name="mine", connector="ollama", status=ServiceStatus.RUNNING, url=url)
        payload = {"input": ["a"], "model": "e"}
        result = await OllamaConnector(session).run(claimed(payload, "ollama"), at, unheard, NO_FILES)
    assert result["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


async def test_a_job_for_openai_looks_the_same_whoever_runs_it(session: aiohttp.ClientSession) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")

    result = await run(session, CHAT | {"max_tokens": 3}, unheard, "openai", v1__chat__completions=answer)
    assert result["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    ("answer", "problem", "text"),
    [
        (lines(said("a")), UpstreamFailed, "too early, after 1 pieces"),
        (lines(said("a"), {"error": "out of memory"}), UpstreamFailed, "out of memory"),
        (lines({"error": "model not found"}, status=404), NotFound, "model not found"),
        (lines({"done": True}), UpstreamFailed, "without its message"),
        (lines("no object"), UpstreamFailed, "not a JSON object"),
    ],
)
async def test_what_goes_wrong_is_told(
    session: aiohttp.ClientSession, answer: Handler, problem: type[Exception], text: str
) -> None:
    with pytest.raises(problem, match=text):
        await run(session, CHAT, api__chat=answer)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (CHAT | {"max_tokens": 3}, "payload.max_tokens"),
        (CHAT | {"temperature": 1}, "payload.temperature"),
        (CHAT | {"options": {"temperature": -1}}, "payload.options.temperature"),
        (CHAT | {"prompt": "x"}, "payload.kind"),
        ({"messages": []}, "payload.messages"),
    ],
)
def test_what_ollama_would_not_understand_is_refused_at_submit(payload: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        OllamaConnector.check(payload)
    assert refused.value.field == field


async def test_without_a_server_there_is_another_attempt(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamFailed, match="no ollama server"):
        await OllamaConnector(session).run(claimed(CHAT, "ollama"), None, unheard, NO_FILES)
