"""A control plane that says what a test makes it say, over HTTP and WebSocket, and keeps what it was asked."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import WSMsgType, web

Script = Callable[["Talk"], Awaitable[None]]


@dataclass
class Said:
    """An answer: `body` as JSON unless it is bytes; or none before the test is over, or a connection that ends."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    cuts: bool = False


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Talk:
    """One WebSocket, as its script sees it."""

    def __init__(self, socket: web.WebSocketResponse, path: str) -> None:
        self.socket = socket
        self.path = path

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, "timestamp": 1} | fields))

    async def greet(self, room: int = 100) -> None:
        await self.say("connection_established", client_id="c", subscriptions_max=room)

    async def hear(self) -> dict[str, Any]:
        message = await self.socket.receive()
        if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
            raise ConnectionResetError
        return dict(json.loads(message.data))

    async def update(self, job: dict[str, Any], version: str = "1.x") -> None:
        await self.say("job_update", event_id=version, job_id=job["job_id"], status=job["status"], job=job)

    async def progress(self, job_id: str, fraction: float | None, message: str | None = None) -> None:
        await self.say("update_job_progress", job_id=job_id, progress=None, fraction=fraction, message=message)

    async def complete(self, job: dict[str, Any], result: Any = None) -> None:
        await self.say(
            "complete_job",
            event_id="9.end",
            job_id=job["job_id"],
            status=job["status"],
            worker_id=None,
            result=result,
            error=job.get("error"),
            job=job,
        )

    async def rest(self) -> None:
        """Stay until the caller goes."""
        while True:
            await self.hear()


class MadeServer:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Asked] = []
        self.talks: list[Talk] = []
        self.scripts: list[Script] = []
        self._replies: dict[tuple[str, str], list[Said]] = {}
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def on(self, method: str, path: str, *replies: Said) -> None:
        """Answer with `replies` in turn; the last one stays."""
        self._replies[method, path] = list(replies)

    def talks_as(self, *scripts: Script) -> None:
        """Converse by `scripts` in turn; the last one stays."""
        self.scripts = list(scripts)

    def asked(self, path: str) -> list[Asked]:
        return [request for request in self.requests if request.path == path]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._until_over())
        self._loop.close()

    async def _until_over(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._over.wait()
        for talk in self.talks:
            await talk.socket.close()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/ws/"):
            return await self._converse(request)
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = json.loads(raw) if raw else None
        self.requests.append(Asked(request.method, request.path, dict(request.query), headers, body))
        replies = self._replies.get((request.method, request.path))
        nothing = {"code": "not_found", "message": f"nothing at {request.path}", "retriable": False}
        said = (replies.pop(0) if len(replies) > 1 else replies[0]) if replies else Said(nothing, 404)
        if said.hangs:
            await self._over.wait()
        if said.cuts and request.transport is not None:
            request.transport.abort()
        told = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        return web.Response(body=told, status=said.status, headers=said.headers)

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        if not self.scripts:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        talk = Talk(socket, request.path)
        self.talks.append(talk)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        with contextlib.suppress(ConnectionResetError):
            await script(talk)
        await socket.close()
        return socket
