"""What connectors make of servers that fail, mislead, hang or are something else."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.catalog import identify
from muster.connectors.engine import EngineLimits
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector
from muster.connectors.vllm import VllmConnector
from muster.domain.model import Model
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import (
    Forbidden,
    InvalidInput,
    MusterError,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.contract.connectors.makers import NO_FILES, claimed, unheard

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def serving(**answers: Any) -> AsyncIterator[str]:
    """Serve fixed JSON (or a handler) at `/` and the names, `__` standing for `/`; all else is 404 in plain text."""
    app = web.Application()
    for name, answer in answers.items():
        app.router.add_route("*", "/" + name.replace("__", "/"), answer if callable(answer) else _says(answer))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _says(value: Any, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(value, status=status)

    return answer


def _sends(*parts: bytes, then: Callable[[web.StreamResponse], Awaitable[None]] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if then is not None:
            await then(response)
        return response

    return answer


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _token(text: str, finish_reason: str | None = None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]})


async def run_chat(session: aiohttp.ClientSession, chat: Any, limits: EngineLimits | None = None) -> Any:
    async with serving(v1__chat__completions=chat) as url:
        service = Service(
            name="odd", connector="openai", status=ServiceStatus.RUNNING, url=url, models=(Model(name="m"),)
        )
        return await OpenAIConnector(session, limits).run(claimed(CHAT), service, unheard, NO_FILES)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (413, PayloadTooLarge),
        (422, InvalidInput),
        (501, InvalidInput),
    ],
)
async def test_a_refusal_is_final_and_keeps_the_engines_words(
    session: aiohttp.ClientSession, status: int, kind: type[MusterError]
) -> None:
    with pytest.raises(kind, match="too many llamas") as refused:
        await run_chat(session, _says({"error": {"message": "too many llamas"}}, status))
    assert not refused.value.retriable


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_trouble_of_the_engine_is_worth_another_try(session: aiohttp.ClientSession, status: int) -> None:
    with pytest.raises(UpstreamFailed, match="try later") as failed:
        await run_chat(session, _says({"error": "try later"}, status))
    assert failed.value.retriable


@pytest.mark.parametrize("body", [{"detail": "why"}, {"message": "why"}, {"error": {"message": "why"}}])
async def test_the_reason_is_found_in_every_shape(session: aiohttp.ClientSession, body: Any) -> None:
    with pytest.raises(UpstreamFailed, match="500: why"):
        await run_chat(session, _says(body, 500))


async def test_a_reason_that_is_no_json_is_quoted(session: aiohttp.ClientSession) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<h1>Bad gateway</h1>")

    with pytest.raises(UpstreamFailed, match="Bad gateway"):
        await run_chat(session, answer)


async def test_an_error_within_the_stream_ends_the_job(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamFailed, match="out of memory"):
        await run_chat(session, _sends(_token("a"), _event({"error": {"message": "out of memory"}})))
    with pytest.raises(InvalidInput, match="too long"):
        await run_chat(session, _sends(_token("a"), _event({"error": {"message": "too long", "code": 400}})))


async def test_an_answer_cut_off_politely_is_no_success(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamFailed, match="too early, after 2 tokens"):
        await run_chat(session, _sends(_token("a"), _token("b")))


async def test_a_broken_connection_is_no_success(session: aiohttp.ClientSession) -> None:
    async def cut(response: web.StreamResponse) -> None:
        assert response._req is not None
        assert response._req.transport is not None
        response._req.transport.abort()

    with pytest.raises(UpstreamFailed, match="was lost") as failed:
        await run_chat(session, _sends(_token("a"), then=cut))
    assert failed.value.retriable


async def test_an_answer_needs_no_done_when_it_said_why_it_ended(session: aiohttp.ClientSession) -> None:
    answer = await run_chat(session, _sends(_token("a"), _token("b", "stop")))
    assert answer["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize("junk", [b"data: not json\n\n", b"data: [1]\n\n", b'data: {"choices": 5}\n\n'])
async def test_events_that_are_not_understood_are_the_engines_fault(
    session: aiohttp.ClientSession, junk: bytes
) -> None:
    with pytest.raises(UpstreamFailed):
        await run_chat(session, _sends(_token("a"), junk))


async def test_comments_do_not_keep_a_hanging_answer_alive(session: aiohttp.ClientSession) -> None:
    async def comment_for_ever(response: web.StreamResponse) -> None:
        while True:
            await response.write(b":" * 100_000 + b"\n\n")

    limits = EngineLimits(first_token_s=0.2, answer_bytes_max=10**12)
    with pytest.raises(UpstreamTimeout, match="first token"):
        await run_chat(session, _sends(then=comment_for_ever), limits)


async def test_an_answer_without_end_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def talk_for_ever(response: web.StreamResponse) -> None:
        while True:
            await response.write(_token("a" * 1000))

    with pytest.raises(UpstreamFailed, match="more than 50000 bytes"):
        await run_chat(session, _sends(then=talk_for_ever), EngineLimits(answer_bytes_max=50_000))


async def test_an_event_without_end_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def never_end_the_line(response: web.StreamResponse) -> None:
        while True:
            await response.write(b"x" * 100_000)

    with pytest.raises(UpstreamFailed, match="an event of more than"):
        await run_chat(session, _sends(then=never_end_the_line))


async def test_an_embedding_that_is_no_object_is_the_engines_fault(session: aiohttp.ClientSession) -> None:
    async with serving(v1__embeddings=[1.0, 2.0]) as url:
        service = Service(
            name="odd", connector="openai", status=ServiceStatus.RUNNING, url=url, models=(Model(name="m"),)
        )
        with pytest.raises(UpstreamFailed, match="not a JSON object"):
            await OpenAIConnector(session).run(claimed({"model": "m", "input": "hi"}), service, unheard, NO_FILES)


async def test_a_machine_that_does_not_answer_is_not_waited_for(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        host, port = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for caller in waiting:
            caller.settimeout(0)
            caller.connect_ex((host, port))
        service = Service(name="odd", connector="openai", status=ServiceStatus.RUNNING, url=f"http://{host}:{port}")
        connector = OpenAIConnector(session, EngineLimits(connect_s=0.2))
        with pytest.raises(UpstreamTimeout, match="cannot connect"):
            await connector.run(claimed(CHAT), service, unheard, NO_FILES)
        for caller in waiting:
            caller.close()


async def test_a_look_that_never_ends_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def talk_for_ever(response: web.StreamResponse) -> None:
        while True:
            await response.write(b" " * 100_000)

    async with serving(version={}, v1__models=_sends(then=talk_for_ever)) as url:
        with pytest.raises(UpstreamFailed, match="more than"):
            await OpenAIConnector(session, EngineLimits(look_s=30.0)).probe(url)


async def test_a_service_that_is_away_is_worth_another_try(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamFailed, match="no openai server runs here") as failed:
        await OpenAIConnector(session).run(claimed(CHAT), None, unheard, NO_FILES)
    assert failed.value.retriable


# --- probes and discovery --------------------------------------------------------------------------------------------

LISTING = {"object": "list", "data": [{"id": "org/model-7b", "object": "model", "owned_by": "somebody"}]}
VLLM_LISTING = {"object": "list", "data": [{"id": "org/model-7b", "owned_by": "vllm", "max_model_len": 32_768}]}
OLLAMA = {
    "api__version": {"version": "0.33.0"},
    "api__tags": {
        "models": [
            {
                "name": "llama3:latest",
                "modified_at": "2026-01-02T03:04:05.123456789+02:00",
                "size": 4_000_000_000,
                "digest": "abc",
                "details": {"family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_0"},
            },
            {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}},
            {"name": "seer:latest", "capabilities": ["completion", "vision"]},
        ]
    },
    "api__ps": {"models": [{"name": "llama3:latest", "context_length": 8192}]},
    "v1__models": LISTING,
}


async def test_ollama_tells_what_it_has_and_what_is_in_memory(session: aiohttp.ClientSession) -> None:
    async with serving(**OLLAMA) as url:
        found = await OllamaConnector(session).probe(url)
    assert found.dialects == (Dialect.OLLAMA, Dialect.OPENAI)
    llama, embedder, seer = found.models
    assert (llama.name, llama.resident, llama.context_length) == ("llama3:latest", True, 8192)
    assert (llama.family, llama.parameter_size, llama.quantization) == ("llama", "8.0B", "Q4_0")
    assert (llama.size_bytes, llama.digest, llama.modified_at_ms) == (4_000_000_000, "abc", 1_767_315_845_123)
    assert llama.capabilities == ("completion", "embedding")
    assert (embedder.resident, embedder.capabilities) == (False, ("embedding",))
    assert seer.capabilities == ("completion", "vision")


async def test_vllm_tells_how_long_its_context_is(session: aiohttp.ClientSession) -> None:
    async with serving(v1__models=VLLM_LISTING, version={"version": "0.11.0"}) as url:
        found = await VllmConnector(session).probe(url)
    (model,) = found.models
    assert (model.name, model.context_length, model.resident) == ("org/model-7b", 32_768, True)


async def test_a_llama_cpp_that_still_loads_is_starting(session: aiohttp.ClientSession) -> None:
    async def loading(_: web.Request) -> web.Response:
        return web.json_response(
            {"error": {"message": "Loading model", "code": 503}}, status=503, headers={"Server": "llama.cpp"}
        )

    async with serving(health=loading, v1__models=_says({}, 503)) as url:
        found = await LlamaCppConnector(session).probe(url)
        assert (found.status, found.models) == (ServiceStatus.STARTING, ())
        identified = await identify(session, url)
    assert identified is not None
    assert (identified.connector, identified.status) == ("llamacpp", ServiceStatus.STARTING)


async def test_a_llama_cpp_that_hides_its_slots_still_says_how_many(session: aiohttp.ClientSession) -> None:
    listing = {"object": "list", "data": [{"id": "/models/Qwen3-8B.Q4_K_M.gguf"}]}
    async with serving(
        health={"status": "ok"},
        props={"total_slots": 4},
        slots=_says({}, 501),
        v1__models=listing,
        v1__embeddings=_says({}, 501),
    ) as url:
        found = await LlamaCppConnector(session).probe(url)
    assert (found.slots, found.slots_busy) == (4, None)
    assert [model.name for model in found.models] == ["Qwen3-8B.Q4_K_M"]


async def test_a_llama_cpp_that_sleeps_is_let_sleep(session: aiohttp.ClientSession) -> None:
    async with serving(
        health={"status": "ok"}, props={"total_slots": 4, "is_sleeping": True}, v1__models=LISTING
    ) as url:
        found = await LlamaCppConnector(session).probe(url)
    assert (found.slots_busy, found.models[0].resident) == (None, False)


@pytest.mark.parametrize(
    ("answers", "connector"),
    [
        (OLLAMA, "ollama"),
        ({"v1__models": VLLM_LISTING, "version": {"version": "0.11.0"}}, "vllm"),
        ({"v1__models": LISTING}, "openai"),
    ],
)
async def test_what_answers_at_a_port_is_told_by_how_it_answers(
    session: aiohttp.ClientSession, answers: dict[str, Any], connector: str
) -> None:
    async with serving(**answers) as url:
        found = await identify(session, url)
    assert found is not None
    assert found.connector == connector


async def test_models_named_for_embedding_are_not_offered_for_chats(session: aiohttp.ClientSession) -> None:
    async with serving(v1__models={"object": "list", "data": [{"id": "nomic-embed-text"}, {"id": "llama"}]}) as url:
        found = await OpenAIConnector(session).probe(url)
    assert [model.capabilities for model in found.models] == [("embedding",), ("completion",)]


async def everything_is_a_page(_: web.Request) -> web.Response:
    return web.Response(text="<html>my app</html>", content_type="text/html")


async def everything_is_fine(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "version": "1.0"})


@pytest.mark.parametrize("answer", [everything_is_a_page, everything_is_fine])
async def test_an_app_that_answers_everything_is_no_model_server(
    session: aiohttp.ClientSession, answer: Handler
) -> None:
    app: dict[str, Any] = {"{path:.*}": answer}
    async with serving(**app) as url:
        assert await identify(session, url) is None
        for kind in (OpenAIConnector, LlamaCppConnector, OllamaConnector, VllmConnector):
            with pytest.raises(UpstreamFailed):
                await kind(session).probe(url)


async def test_an_engines_load_is_read_from_its_metrics_and_who_has_none_is_asked_once(
    session: aiohttp.ClientSession,
) -> None:
    looks = 0
    told = "sglang:num_running_reqs 3\nsglang:num_queue_reqs 2\n"

    async def metrics(_: web.Request) -> web.Response:
        nonlocal looks
        looks += 1
        return web.Response(text=told)

    models = {"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}
    async with serving(v1__models=models, metrics=metrics) as url:
        for kind in (OpenAIConnector, VllmConnector):
            seen = await kind(session).probe(url)
            assert (seen.slots, seen.slots_busy, seen.requests_waiting) == (None, 3, 2)
        told, looks = "<p>no metrics", 0
        connector = OpenAIConnector(session)
        for _ in range(3):
            seen = await connector.probe(url)
            assert (seen.slots_busy, seen.requests_waiting) == (None, None)
    assert looks == 1


async def test_metrics_that_hang_are_no_reason_to_miss_a_server(session: aiohttp.ClientSession) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    models = {"object": "list", "data": [{"id": "m"}]}
    async with serving(v1__models=models, metrics=hang) as url:
        seen = await OpenAIConnector(session, EngineLimits(look_s=0.2)).probe(url)
    assert (seen.status, seen.slots_busy) == (ServiceStatus.RUNNING, None)


async def test_an_empty_list_of_models_may_be_anybodys(session: aiohttp.ClientSession) -> None:
    async with serving(v1__models={"object": "list", "data": []}) as url:
        assert await identify(session, url) is None


async def test_nothing_is_found_where_nothing_listens(session: aiohttp.ClientSession) -> None:
    assert await identify(session, "http://127.0.0.1:9") is None


async def test_a_muster_is_never_taken_for_a_model_server(session: aiohttp.ClientSession) -> None:
    async with serving(**OLLAMA, version={"version": "0.1.0", "name": "muster"}) as url:
        assert await identify(session, url) is None
        for kind in (OpenAIConnector, LlamaCppConnector, OllamaConnector, VllmConnector):
            with pytest.raises(UpstreamFailed, match="is a Muster"):
                await kind(session).probe(url)
