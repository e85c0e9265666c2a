"""Fetching a model and letting go of one, as far as a server can."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.engine import EngineLimits
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector
from muster.domain.job import Progress
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, MusterError, NotFound, UpstreamFailed, UpstreamTimeout
from muster.ports import PullsModels, RemovesModels, UnloadsModels
from tests.contract.connectors.test_odd_servers import Handler, serving


def at(url: str, connector: str = "ollama") -> Service:
    return Service(name="mine", connector=connector, status=ServiceStatus.RUNNING, url=url)


def says(*lines: str, status: int = 200, seen: list[Any] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(await request.json())
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        with suppress(ConnectionError):  # who has heard enough goes
            for line in lines:
                await response.write(line.encode())
        return response

    return answer


async def test_who_can_says_so_by_what_it_offers(session: aiohttp.ClientSession) -> None:
    ollama, llama, other = OllamaConnector(session), LlamaCppConnector(session), OpenAIConnector(session)
    assert isinstance(ollama, PullsModels)
    assert isinstance(ollama, UnloadsModels)
    assert isinstance(llama, UnloadsModels)
    assert not isinstance(llama, PullsModels)
    assert not isinstance(other, PullsModels | UnloadsModels)


async def test_ollama_fetches_a_model_and_tells_how_far_it_is(session: aiohttp.ClientSession) -> None:
    told: list[Progress] = []
    seen: list[Any] = []
    answer = says(
        '{"status":"pulling manifest"}\n{"status":"pulling abc","total":200,',  # lines come as they come
        '"completed":50}\n\n{"status":"pulling abc","total":0,"completed":7}\n',
        '{"status":"success"}\n',
        seen=seen,
    )
    async with serving(api__pull=answer) as url:
        found = await OllamaConnector(session).pull_model(at(f"{url}/v1"), "llama3", told.append)
    assert found == {"model": "llama3", "service": "mine"}
    assert seen == [{"model": "llama3"}]
    assert told == [
        Progress(message="pulling manifest"),
        Progress(fraction=0.25, message="pulling abc"),
        Progress(message="pulling abc"),
        Progress(message="success"),
    ]


@pytest.mark.parametrize(
    ("answer", "problem", "text"),
    [
        (says('{"error":"file does not exist"}\n'), UpstreamFailed, "file does not exist"),
        (says('{"error":"no such model"}', status=404), NotFound, "no such model"),
        (says('{"status":"pulling"}\n'), UpstreamFailed, "ended the pull of llama3 with 'pulling'"),
        (says(), UpstreamFailed, "with None"),
        (says("<html>\n"), UpstreamFailed, "not a JSON object"),
        (says("x" * 5_000_000), UpstreamFailed, "line without end"),
    ],
)
async def test_a_pull_that_fails_is_told(
    session: aiohttp.ClientSession, answer: Handler, problem: type[MusterError], text: str
) -> None:
    async with serving(api__pull=answer) as url:
        with pytest.raises(problem, match=text):
            await OllamaConnector(session).pull_model(at(url), "llama3", lambda _: None)


async def test_a_pull_that_falls_silent_ends(session: aiohttp.ClientSession) -> None:
    over = asyncio.Event()

    async def fall_silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"status":"pulling"}\n')
        await over.wait()
        return response

    async with serving(api__pull=fall_silent) as url:
        connector = OllamaConnector(session, EngineLimits(first_token_s=0.2))
        with pytest.raises(UpstreamTimeout, match="with a next word within"):
            await connector.pull_model(at(url), "llama3", lambda _: None)
        over.set()


async def test_ollama_lets_go_of_a_model(session: aiohttp.ClientSession) -> None:
    seen: list[Any] = []
    async with serving(api__generate=says('{"done":true,"done_reason":"unload"}', seen=seen)) as url:
        found = await OllamaConnector(session).unload_model(at(url), "llama3")
    assert found == {"model": "llama3", "service": "mine"}
    assert seen == [{"model": "llama3", "keep_alive": 0}]
    async with serving(api__generate=says('{"error":"model not found"}', status=404)) as url:
        with pytest.raises(NotFound, match="model not found"):
            await OllamaConnector(session).unload_model(at(url), "llama3")


async def test_ollama_deletes_a_model(session: aiohttp.ClientSession) -> None:
    seen: list[Any] = []
    assert isinstance(OllamaConnector(session), RemovesModels)
    async with serving(api__delete=says(seen=seen)) as url:
        found = await OllamaConnector(session).remove_model(at(url), "llama3")
    assert found == {"model": "llama3", "service": "mine"}
    assert seen == [{"model": "llama3"}]
    async with serving(api__delete=says('{"error":"model not found"}', status=404)) as url:
        with pytest.raises(NotFound, match="model not found"):
            await OllamaConnector(session).remove_model(at(url), "llama3")


async def test_a_llama_cpp_router_lets_go_of_a_model_and_a_single_server_keeps_its_own(
    session: aiohttp.ClientSession,
) -> None:
    seen: list[Any] = []
    async with serving(models__unload=says('{"success":true}', seen=seen)) as url:
        await LlamaCppConnector(session).unload_model(at(url, "llamacpp"), "m")
    assert seen == [{"model": "m"}]
    async with serving() as url:
        with pytest.raises(Conflict, match="has one model and keeps it"):
            await LlamaCppConnector(session).unload_model(at(url, "llamacpp"), "m")
    async with serving(models__unload=says('{"error":{"message":"it is busy"}}', status=503)) as url:
        with pytest.raises(UpstreamFailed, match="it is busy"):
            await LlamaCppConnector(session).unload_model(at(url, "llamacpp"), "m")
