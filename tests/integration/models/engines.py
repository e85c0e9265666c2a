"""Made engines with a memory: an Ollama that loads and unloads, and a ComfyUI that can be told to let go."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

_BYTES_PER_MB = 1024 * 1024


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class MadeOllama:
    """Has models of so many MB each. `open` is what a load waits for; those in `broken` cannot be loaded."""

    def __init__(self, memory_mb: int, **models: int) -> None:
        self.memory_mb = memory_mb
        self.models = models
        self.loaded: dict[str, Any] = {}  # with the keep_alive that each was asked with
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    @property
    def used_mb(self) -> int:
        return sum(self.models[name] for name in self.loaded)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["MadeOllama"]:
        routes = (
            web.get("/api/version", self._version),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._ps),
            web.post("/api/generate", self._generate),
            web.post("/api/chat", self._chat),
            web.post("/v1/chat/completions", self._stream),
        )
        async with serving(*routes) as self.url:
            yield self

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.12.0"})

    async def _tags(self, _: web.Request) -> web.Response:
        listed = [{"name": name, "size": mb * _BYTES_PER_MB} for name, mb in self.models.items()]
        return web.json_response({"models": listed})

    async def _ps(self, _: web.Request) -> web.Response:
        listed = [{"name": name, "size_vram": self.models[name] * _BYTES_PER_MB} for name in self.loaded]
        return web.json_response({"models": listed})

    async def _generate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        model = asked["model"]
        if asked.get("keep_alive") == 0:
            self.loaded.pop(model, None)
            return web.json_response({"model": model, "done": True, "done_reason": "unload"})
        if (problem := await self._load(model, asked.get("keep_alive"))) is not None:
            return web.json_response({"error": problem}, status=500)
        return web.json_response({"model": model, "done": True, "done_reason": "load"})

    async def _chat(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.text())
        if (problem := await self._load(asked["model"], None)) is not None:
            return web.json_response({"error": problem}, status=500)
        message = {"role": "assistant", "content": f"{asked['model']} says so"}
        return web.json_response({"model": asked["model"], "message": message, "done": True})

    async def _stream(self, request: web.Request) -> web.Response:
        model = json.loads(await request.text())["model"]
        if (problem := await self._load(model, None)) is not None:
            return web.json_response({"error": {"message": problem}}, status=500)
        said = {
            "object": "chat.completion.chunk",
            "model": model,
            "choices": [{"delta": {"content": f"{model} says so"}}],
        }
        text = f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")

    async def _load(self, model: str, keep_alive: Any) -> str | None:
        if model not in self.loaded:
            await self.open.wait()
            if model in self.broken:
                return f"{model} is broken"
            if self.used_mb + self.models[model] > self.memory_mb:
                return "out of memory"
            self.loads.append(model)
        self.loaded[model] = keep_alive
        return None


class MadeComfy:
    """Counts how often it is told to let go of its memory."""

    def __init__(self) -> None:
        self.freed = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["MadeComfy"]:
        async with serving(
            web.get("/system_stats", self._stats), web.get("/prompt", self._prompt), web.post("/free", self._free)
        ) as self.url:
            yield self

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {}, "devices": []})

    async def _prompt(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": 0}})

    async def _free(self, request: web.Request) -> web.Response:
        assert await request.json() == {"unload_models": True, "free_memory": True}
        self.freed += 1
        return web.Response()
