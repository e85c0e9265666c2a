"""A server of files that fails as it is told to, and keeps what it was asked: for downloads."""

import asyncio
import hashlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from aiohttp import web

from tests.waiting import eventually

_CHUNK_BYTES = 16_384


@dataclass
class Fault:
    """What is wrong with one answer. `cut_at`: the connection ends after so many bytes; `hang_at`: it falls silent.

    `hold_at`: it waits there until the server is told to `go_on`.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    hang_at: int | None = None
    hold_at: int | None = None
    no_ranges: bool = False
    instead: bytes | None = None
    announced: int | None = None
    unsized: bool = False


@dataclass
class Asked:
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class FileServer:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str | None] = {}
        self.documents: dict[str, Any] = {}
        self.asked: list[Asked] = []
        self.sent: Counter[str] = Counter()  # how often its content, or a part of it, went out
        self.always: dict[str, Fault] = {}
        self.has_arrived: Callable[[int], bool] = lambda _: True
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._gate = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._port = 0

    def put(self, path: str, content: bytes, *, tag: str | None = "") -> str:
        """Serve `content`; return its URL. `tag` None: without an ETag, empty: one made of the content."""
        self.files[path] = content
        self.tags[path] = f'"{hashlib.sha256(content).hexdigest()[:16]}"' if tag == "" else tag
        return self.url(path)

    def put_hub(self, repo: str, commit: str, files: dict[str, bytes], *, revision: str = "main") -> None:
        """Serve a repository as Hugging Face does; the files with a checksum, as large ones have it there."""
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
            }
            for name, content in files.items()
        ]
        self.documents[f"/api/models/{repo}/revision/{revision}"] = {"sha": commit, "siblings": siblings}
        for name, content in files.items():
            self.put(f"/{repo}/resolve/{commit}/{name}", content)

    def fail(self, path: str, *faults: Fault) -> None:
        """Be wrong in these ways, once each, then right."""
        self._faults[path] += faults

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._gate.set)

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def count(self, path: str) -> int:
        return sum(asked.path == path for asked in self.asked)

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
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())  # one more turn: connections see their end
        self._loop.close()

    async def _until_over(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._over.wait()
        self._gate.set()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(Asked(path, {name.lower(): value for name, value in request.headers.items()}))
        fault = self._faults[path].pop(0) if self._faults[path] else self.always.get(path, Fault())
        if fault.status is not None:
            return web.Response(status=fault.status, headers=fault.headers)
        if path in self.documents:
            return web.Response(body=json.dumps(self.documents[path]).encode(), content_type="application/json")
        content = fault.instead if fault.instead is not None else self.files.get(path)
        if content is None:
            return web.Response(status=404)
        return await self._send(request, content, self.tags.get(path), fault)

    async def _send(self, request: web.Request, content: bytes, tag: str | None, fault: Fault) -> web.StreamResponse:
        if tag is not None and request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        asked = request.headers.get("Range") if not fault.no_ranges else None
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if begin and request.headers.get("If-Range", tag) != tag:
            begin = 0
        if begin and begin >= len(content):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        headers |= {"ETag": tag} if tag else {}
        response = web.StreamResponse(status=206 if begin else 200, headers=headers | fault.headers)
        if fault.unsized:
            response.enable_chunked_encoding()
        else:
            response.content_length = fault.announced or len(content) - begin
        self.sent[request.path] += 1
        await response.prepare(request)
        await self._send_body(request, response, content, begin, fault)
        return response

    async def _send_body(
        self, request: web.Request, response: web.StreamResponse, content: bytes, begin: int, fault: Fault
    ) -> None:
        body, sent = content[begin:], 0
        for stop, what in ((fault.cut_at, "cut"), (fault.hang_at, "hang"), (fault.hold_at, "hold")):
            if stop is None:
                continue
            await response.write(body[sent:stop])
            sent = stop
            if what == "cut" and request.transport is not None:
                await eventually(partial(self.has_arrived, begin + stop))  # or the end would overtake the bytes
                request.transport.close()
                return
            await (self._over if what == "hang" else self._gate).wait()
        while sent < len(body):
            await response.write(body[sent : sent + _CHUNK_BYTES])
            sent += _CHUNK_BYTES
        await response.write_eof()
