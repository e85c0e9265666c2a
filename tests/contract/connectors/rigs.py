"""One of each kind of connector with something real enough behind it: work that is done at once, lasts, or is large."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from msgspec import Struct

from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.comfyui.server import ComfyLimits
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector
from muster.connectors.program.config import Program
from muster.connectors.program.connector import ProgramConnector
from muster.connectors.simulation import SimulationConnector
from muster.connectors.web_service.config import Polling, Streaming, WebService
from muster.connectors.web_service.connector import WebServiceConnector
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.ports import Connector
from muster.system import system_rng
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
BIG = "x" * 9_000_000  # more than a worker takes as a result
LONG_S = 3600


class Rig(Struct, kw_only=True):
    """`long` tells progress and then does not end; `big` is None where results are small by nature.

    `die` ends what does the work, without a word; None where nothing but us does it.
    """

    connector: Connector
    service: Service | None
    instant: Any
    long: Any
    bad: Any
    big: Any = None
    job_service: str
    die: Callable[[], Awaitable[None]] | None = None
    revive: Callable[[], Awaitable[None]] | None = None
    begun: asyncio.Event | None = None  # set when the service has begun what lasts


class Pieces:
    """A server that answers in pieces; a payload with the word `long` is begun and not ended."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._transports: set[Any] = set()
        self.begun = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**28)
        app.router.add_get("/version", self._nothing)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._tags)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/api/chat", self._ollama)
        app.router.add_route("*", "/once", self._once)
        app.router.add_post("/stream", self._stream)
        app.router.add_post("/later", self._later)
        app.router.add_get("/later/{id}", self._status)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _send(self, request: web.Request, pieces: list[str], kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._transports.add(request.transport)
        await response.write(pieces[0].encode())
        if kind == "long":
            self.begun.set()
            await asyncio.Event().wait()
        for piece in pieces[1:]:
            await response.write(piece.encode())
        return response

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        kind = (await request.json())["messages"][0]["content"]
        text = BIG if kind == "big" else "done"
        said: list[Any] = [{"delta": {"content": text[i : i + 2**20]}} for i in range(0, len(text), 2**20)]
        said.append({"delta": {}, "finish_reason": "stop"})
        pieces = [f"data: {json.dumps({'choices': [{'index': 0} | part]})}\n\n" for part in said]
        return await self._send(request, pieces, kind)

    async def _ollama(self, request: web.Request) -> web.StreamResponse:
        kind = (await request.json())["messages"][0]["content"]
        text = BIG if kind == "big" else "done"
        pieces = [json.dumps({"message": {"content": text[i : i + 2**20]}}) + "\n" for i in range(0, len(text), 2**20)]
        return await self._send(request, [*pieces, json.dumps({"message": {}, "done": True}) + "\n"], kind)

    async def _once(self, request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response()
        kind = await request.json()
        return await self._send(request, [json.dumps(BIG if kind == "big" else "done")], kind)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        kind = await request.json()
        end: dict[str, Any] = {"at": 1, "out": [BIG[: 3 * 2**20]] * 3 if kind == "big" else "done"}
        return await self._send(request, ['{"at": 0.5}\n', json.dumps(end)], kind)

    async def _later(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": await request.json()})

    async def _status(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["id"]
        if kind == "long":
            return web.json_response({"status": "running"})
        return web.json_response({"status": "done", "out": BIG if kind == "big" else "done"})

    async def _nothing(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=404)

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": "m"}]})

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": "1"})

    async def _tags(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": []})


def _asks(kind: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": kind}]}


@asynccontextmanager
async def _of_pieces(
    name: str, make: Callable[[aiohttp.ClientSession, str], Connector], payload: Callable[[str], Any], bad: Any
) -> AsyncIterator[Rig]:
    server = Pieces()
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            connector = make(session, server.url)
            yield Rig(
                connector=connector,
                service=Service(
                    name=name,
                    connector=connector.name,
                    status=ServiceStatus.RUNNING,
                    url=server.url,
                    models=(Model(name="m"),),
                ),
                instant=payload("instant"),
                long=payload("long"),
                bad=bad,
                big=payload("big"),
                job_service=connector.name,
                die=server.stop,
                revive=server.start,
                begun=server.begun,
            )
    finally:
        await server.stop()


def openai() -> Any:
    return _of_pieces("llm", lambda session, _: OpenAIConnector(session), _asks, {"messages": []})


def ollama() -> Any:
    return _of_pieces("llm", lambda session, _: OllamaConnector(session), _asks, _asks("x") | {"max_tokens": 3})


def http(answer: str) -> Any:
    def make(session: aiohttp.ClientSession, url: str) -> Connector:
        config = WebService(
            name="web",
            url=url,
            path={"once": "/once", "poll": "/later", "stream": "/stream"}[answer],
            answer=answer,  # type: ignore[arg-type]  # one of the three
            poll=Polling(id="id", status="/later/{id}", result="out", every_s=0.05),
            stream=Streaming(progress="at", result="out"),
        )
        return WebServiceConnector(session, config)

    return _of_pieces("web", make, lambda kind: {"body": kind}, {"url": "http://elsewhere"})


@asynccontextmanager
async def simulation() -> AsyncIterator[Rig]:
    yield Rig(
        connector=SimulationConnector(system_rng()),
        service=None,
        instant={"duration_ms": 0, "result": "done"},
        long={"duration_ms": LONG_S * 1000, "steps": 10_000},
        bad={"duration_ms": -1},
        big={"duration_ms": 0, "result": BIG},
        job_service="simulation",
    )


_PROGRAM = """
import os, signal, sys
if sys.argv[1] == "long":
    print('{"progress": 0.5, "message": "%d"}' % os.getpid(), flush=True); signal.pause()
print('"' + "x" * (9_000_000 if sys.argv[1] == "big" else 4) + '"')
"""


@asynccontextmanager
async def command(folder: Path) -> AsyncIterator[Rig]:
    result = _PROGRAM.replace("print('\"'", "open('r.json', 'w').write('\"'")
    words = (sys.executable, "-c", result, "{kind:instant|long|big}")
    program = Program(name="work", command=words, result="r.json")
    connector = ProgramConnector(program, folder)

    async def die() -> None:
        (child,) = (child for child in psutil.Process().children() if "long" in child.cmdline())
        child.kill()

    yield Rig(
        connector=connector,
        service=None,
        instant={"args": {"kind": "instant"}},
        long={"args": {"kind": "long"}},
        bad={"argv": ["rm"]},
        big={"args": {"kind": "big"}},
        job_service="command:work",
        die=die,
    )


@asynccontextmanager
async def comfyui() -> AsyncIterator[Rig]:
    """Run the server as a process of its own, so that it can die as one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url, processes = f"http://127.0.0.1:{port}", list[subprocess.Popen[bytes]]()
    save = {"class_type": "SaveImage", "inputs": {}}
    limits = ComfyLimits(look_every_s=0.05, lost_s=0.2)
    async with aiohttp.ClientSession() as session:
        connector = ComfyUIConnector(session, limits)

        async def start() -> None:
            command = [sys.executable, "-m", "tests.contract.connectors.comfyui_stub", str(port)]
            processes.append(subprocess.Popen(command, cwd=ROOT))  # noqa: ASYNC220 - it returns at once

            async def answers() -> bool:
                async with session.get(f"{url}/prompt") as answer:
                    return answer.status == 200

            await eventually(answers, 30)

        async def die() -> None:
            processes[-1].kill()
            await asyncio.to_thread(processes[-1].wait)

        await start()
        try:
            yield Rig(
                connector=connector,
                service=Service(name="comfyui", connector="comfyui", status=ServiceStatus.RUNNING, url=url),
                instant={"prompt": {"1": save}},
                long={"prompt": {"1": {"class_type": "Wait", "inputs": {}}, "2": save}},
                bad={"prompt": {}},
                job_service="comfyui",
                die=die,
                revive=start,
            )
        finally:
            await die()


KINDS: dict[str, Callable[[Path], Any]] = {
    "simulation": lambda _: simulation(),
    "openai": lambda _: openai(),
    "ollama": lambda _: ollama(),
    "comfyui": lambda _: comfyui(),
    "http once": lambda _: http("once"),
    "http poll": lambda _: http("poll"),
    "http stream": lambda _: http("stream"),
    "command": command,
}
