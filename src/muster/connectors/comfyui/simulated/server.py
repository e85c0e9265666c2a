"""ComfyUI's HTTP API and WebSocket, as far as programs use them, over an executor that computes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from aiohttp import WSCloseCode, web

from muster.connectors.comfyui.simulated import VERSION
from muster.connectors.comfyui.simulated.executor import Executor
from muster.connectors.comfyui.simulated.nodes import Json, object_info, outputs_of, refusal

_BODY_BYTES_MAX = 256 * 1024 * 1024
_FOLDERS = frozenset({"input", "output", "temp"})
_MEMORY_BYTES = 16 * 1024**3  # what it pretends to have
_MARK = "simulated: nothing is computed here"


class SimulatedComfyUI:
    def __init__(self, folder: Path, *, gpu: int = 0, step_s: float = 0.05) -> None:
        self._folder = folder
        self._gpu = gpu
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._executor = Executor(self._send, folder, step_s)
        self._number = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/", self._about),
                web.get("/health", self._about),
                web.get("/system_stats", self._stats),
                web.get("/object_info", self._object_info),
                web.get("/object_info/{name}", self._object_info),
                web.get("/models/checkpoints", self._checkpoints),
                web.get("/ws", self._socket),
                web.get("/prompt", self._exec_info),
                web.post("/prompt", self._submit),
                web.get("/queue", self._queue),
                web.post("/queue", self._change_queue),
                web.post("/interrupt", self._interrupt),
                web.post("/free", self._free),
                web.get("/history", self._history),
                web.get("/history/{prompt_id}", self._history_of),
                web.get("/view", self._view),
                web.post("/upload/image", self._upload),
            ]
        )
        app.cleanup_ctx.append(self._running)
        return app

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        work = asyncio.create_task(self._executor.run(), name="executor")
        yield
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        for socket in list(self._sockets.values()):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _send(self, client_id: str | None, kind: str, data: Json) -> None:
        """Tell one client, or all; who does not listen misses it, as with ComfyUI."""
        text = json.dumps({"type": kind, "data": data})
        for known_id, socket in list(self._sockets.items()):
            if client_id in {None, known_id}:
                with suppress(ConnectionError):
                    await socket.send_str(text)

    # --- what it is ---------------------------------------------------------------------------------------------------

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "service": "comfyui", "simulated": True, "note": _MARK})

    async def _stats(self, _: web.Request) -> web.Response:
        memory = {"vram_total": _MEMORY_BYTES, "vram_free": _MEMORY_BYTES}
        device = {"name": f"simulated GPU {self._gpu}", "type": "simulated", "index": self._gpu} | memory
        system = {"os": "posix", "comfyui_version": VERSION, "simulated": True, "note": _MARK}
        return web.json_response({"system": system, "devices": [device]})

    async def _object_info(self, request: web.Request) -> web.Response:
        known, name = object_info(), request.match_info.get("name")
        return web.json_response(known if name is None else {name: known[name]} if name in known else {})

    async def _checkpoints(self, _: web.Request) -> web.Response:
        folder = self._folder / "models" / "checkpoints"
        return web.json_response(sorted(path.name for path in folder.glob("*") if path.is_file()))

    # --- prompts ------------------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=30.0)
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid4().hex
        self._sockets[client_id] = socket
        info = {"exec_info": {"queue_remaining": self._executor.remaining}}
        await self._send(client_id, "status", {"status": info, "sid": client_id})
        async for _ in socket:
            pass
        if self._sockets.get(client_id) is socket:
            del self._sockets[client_id]
        return socket

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        graph = body.get("prompt") if isinstance(body, dict) else None
        if not isinstance(graph, dict):
            graph = {}
        if (refused := refusal(graph)) is not None:
            return web.json_response(refused, status=400)
        self._number += 1
        prompt_id = str(body.get("prompt_id") or uuid4())
        extra = (body.get("extra_data") or {}) | {"client_id": body.get("client_id")}
        await self._executor.put([self._number, prompt_id, graph, extra, outputs_of(graph)])
        return web.json_response({"prompt_id": prompt_id, "number": self._number, "node_errors": {}})

    async def _exec_info(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self._executor.remaining}})

    async def _queue(self, _: web.Request) -> web.Response:
        executor = self._executor
        return web.json_response({"queue_running": executor.running, "queue_pending": executor.pending})

    async def _change_queue(self, request: web.Request) -> web.Response:
        asked = await request.json()
        gone = asked.get("delete", [])
        pending = self._executor.pending
        pending[:] = [] if asked.get("clear") else [prompt for prompt in pending if prompt[1] not in gone]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        asked = await request.json() if request.can_read_body else {}
        self._executor.interrupt(asked.get("prompt_id"))
        return web.Response()

    async def _free(self, _: web.Request) -> web.Response:
        return web.Response()  # there is nothing that it could free

    async def _history(self, request: web.Request) -> web.Response:
        count = int(request.query.get("max_items", "100"))
        newest = list(self._executor.history.items())[-count:]
        return web.json_response(dict(newest))

    async def _history_of(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = self._executor.history.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    # --- files --------------------------------------------------------------------------------------------------------

    async def _view(self, request: web.Request) -> web.StreamResponse:
        path = self._path(request.query.get("type") or "output", request.query.get("filename", ""))
        if path is None or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def _upload(self, request: web.Request) -> web.Response:
        image = (await request.post()).get("image")
        if not isinstance(image, web.FileField):
            raise web.HTTPBadRequest
        name = Path(image.filename).name
        path = self._path("input", name)
        if path is None:
            raise web.HTTPBadRequest
        await asyncio.to_thread(_write, path, image.file.read())
        return web.json_response({"name": name, "subfolder": "", "type": "input"})

    def _path(self, where: str, name: str) -> Path | None:
        """Return a file's place; None for a name that leads elsewhere."""
        is_plain = name not in {"", ".."} and name == Path(name).name
        return self._folder / where / name if where in _FOLDERS and is_plain else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
