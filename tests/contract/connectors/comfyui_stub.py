"""A server that speaks ComfyUI's protocol: its messages in its order, its shapes of queue, history and errors.

Nodes: EmptyImage, SaveImage, PreviewImage, LoadImage; Steps tells `steps` of progress and a preview; Wait runs until it
is let go or interrupted; Fails fails as its inputs say. Cached nodes are those that ran before with the same inputs.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSCloseCode, web

CLASSES = {"EmptyImage", "SaveImage", "PreviewImage", "LoadImage", "Steps", "Wait", "Fails"}
PICTURE = b"\x89PNG\r\n\x1a\n" + b"pixels" * 20
OUTPUT_NODES = {"SaveImage", "PreviewImage"}


class _Interrupted(Exception):
    pass


class ComfyStub:
    def __init__(self) -> None:
        self.pending: list[list[Any]] = []
        self.running: list[list[Any]] = []
        self.history: dict[str, dict[str, Any]] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.uploads: dict[str, bytes] = {}
        self.submits: list[dict[str, Any]] = []
        self.interrupts: list[Any] = []
        self.listened: list[str] = []
        self.deaf = False  # refuses WebSockets
        self.loses_answers = False  # takes a prompt and says nothing
        self.held = False  # takes prompts and runs none
        self.begins_meanwhile = False  # with what it held, when it is to be taken out of the queue
        self.preview_bytes = 0
        self.let_go = asyncio.Event()
        self.waiting = asyncio.Event()
        self._work = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._cache: dict[str, str] = {}
        self._count = 0
        self._executor: asyncio.Task[None] | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/system_stats", self._stats)
        app.router.add_get("/prompt", self._exec_info)
        app.router.add_post("/prompt", self._submit)
        app.router.add_get("/queue", self._queue)
        app.router.add_post("/queue", self._change_queue)
        app.router.add_post("/interrupt", self._interrupt_it)
        app.router.add_get("/history", self._whole_history)
        app.router.add_get("/history/{prompt_id}", self._one_history)
        app.router.add_get("/view", self._view)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_get("/models/checkpoints", self._models)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    # --- faults -------------------------------------------------------------------------------------------------------

    async def drop_sockets(self) -> None:
        for socket in list(self.sockets.values()):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        self.sockets.clear()

    async def restart(self) -> None:
        """Forget all, as a process that was started anew has."""
        await self._stop(None)
        await self.drop_sockets()
        self.pending, self.running, self.history, self._cache = [], [], {}, {}
        await self._start(None)

    def release(self) -> None:
        self.held = False
        self._work.set()

    # --- the executor -------------------------------------------------------------------------------------------------

    async def _start(self, _: Any) -> None:
        self._executor = asyncio.create_task(self._execute_all())

    async def _stop(self, _: Any) -> None:
        if self._executor is not None:
            self._executor.cancel()
            await asyncio.gather(self._executor, return_exceptions=True)
        await self.drop_sockets()

    async def _execute_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self.pending and not self.held:
                item = self.pending.pop(0)
                self.running.append(item)
                entry = await self._execute(item)
                self.running.remove(item)
                self.history[item[1]] = entry
                await self._tell_status()
                await self._send(item[3].get("client_id"), "executing", {"node": None, "prompt_id": item[1]})

    async def _execute(self, item: list[Any]) -> dict[str, Any]:
        _, prompt_id, graph, extra, _ = item
        client_id = extra.get("client_id")
        messages: list[Any] = []
        outputs: dict[str, Any] = {}

        async def tell(kind: str, **data: Any) -> None:
            data["prompt_id"] = prompt_id
            if kind.startswith("execution_"):
                messages.append([kind, data])
            await self._send(client_id, kind, data)

        def entry(status: str) -> dict[str, Any]:
            told = {"status_str": status, "completed": status == "success", "messages": messages}
            return {"prompt": item, "outputs": outputs, "status": told, "meta": {}}

        self._interrupt.clear()
        cached = [key for key, node in graph.items() if self._cache.get(key) == json.dumps(node, sort_keys=True)]
        await tell("execution_start", timestamp=1)
        await tell("execution_cached", nodes=cached, timestamp=1)
        for key, node in graph.items():
            kind = node["class_type"]
            try:
                if key not in cached:
                    await tell("progress_state", nodes={key: {"value": 0, "max": 1, "state": "running"}})
                    await tell("executing", node=key, display_node=key)
                    await self._run(key, node, tell, client_id)
            except _Interrupted:
                await tell("execution_interrupted", node_id=key, node_type=kind, executed=[])
                return entry("error")
            except RuntimeError:
                error = {"exception_type": node["inputs"]["type"], "exception_message": node["inputs"]["message"]}
                await tell("execution_error", node_id=key, node_type=kind, executed=[], traceback=["x"], **error)
                return entry("error")
            self._cache[key] = json.dumps(node, sort_keys=True)
            if kind in OUTPUT_NODES:
                self._count += 1
                where = "output" if kind == "SaveImage" else "temp"
                name = f"{node['inputs'].get('filename_prefix', 'ComfyUI')}_{self._count:05}_.png"
                outputs[key] = {"images": [{"filename": name, "subfolder": "", "type": where}]}
                await tell("executed", node=key, display_node=key, output=outputs[key])
        await tell("execution_success", timestamp=2)
        return entry("success")

    async def _run(self, key: str, node: dict[str, Any], tell: Any, client_id: Any) -> None:
        match node["class_type"]:
            case "Steps":
                steps = node["inputs"]["steps"]
                for step in range(1, steps + 1):
                    await tell("progress", value=step, max=steps, node=key)
                    if self.preview_bytes:
                        await self._send_picture(client_id)
            case "Wait":
                self.waiting.set()
                waits = [asyncio.ensure_future(event.wait()) for event in (self.let_go, self._interrupt)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
                if self._interrupt.is_set():
                    raise _Interrupted
            case "Fails":
                raise RuntimeError

    # --- telling ------------------------------------------------------------------------------------------------------

    async def _send(self, client_id: Any, kind: str, data: dict[str, Any]) -> None:
        if (socket := self.sockets.get(client_id)) is not None:
            with suppress(ConnectionError):
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    async def _send_picture(self, client_id: Any) -> None:
        if (socket := self.sockets.get(client_id)) is not None:
            head = (1).to_bytes(4, "big") + (1).to_bytes(4, "big")
            with suppress(ConnectionError):
                await socket.send_bytes(head + b"\xff\xd8" + b"x" * self.preview_bytes)

    async def _tell_status(self) -> None:
        status = {"status": {"exec_info": {"queue_remaining": len(self.pending) + len(self.running)}}}
        for client_id in list(self.sockets):
            await self._send(client_id, "status", status)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.deaf:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "")
        self.sockets[client_id] = socket
        self.listened.append(client_id)
        info = {"exec_info": {"queue_remaining": len(self.pending)}}
        await socket.send_str(json.dumps({"type": "status", "data": {"status": info, "sid": client_id}}))
        async for _ in socket:
            pass
        if self.sockets.get(client_id) is socket:
            del self.sockets[client_id]
        return socket

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.submits.append(body)
        unknown = {key: node for key, node in body["prompt"].items() if node["class_type"] not in CLASSES}
        if unknown:
            return web.json_response(_refusal(unknown), status=400)
        self._number = len(self.submits)
        prompt_id = f"prompt-{self._number}"
        extra = body.get("extra_data", {}) | {"client_id": body["client_id"]}
        ends = [key for key, node in body["prompt"].items() if node["class_type"] in OUTPUT_NODES]
        self.pending.append([self._number, prompt_id, body["prompt"], extra, ends])
        await self._tell_status()
        self._work.set()
        if self.loses_answers:
            self.loses_answers = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"prompt_id": prompt_id, "number": self._number, "node_errors": {}})

    async def _queue(self, _: web.Request) -> web.Response:
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def _change_queue(self, request: web.Request) -> web.Response:
        gone = (await request.json()).get("delete", [])
        if self.begins_meanwhile:
            self.release()
            await self.waiting.wait()
        self.pending = [item for item in self.pending if item[1] not in gone]
        return web.Response()

    async def _interrupt_it(self, request: web.Request) -> web.Response:
        self.interrupts.append(await request.json() if request.can_read_body else None)
        self._interrupt.set()
        return web.Response()

    async def _whole_history(self, request: web.Request) -> web.Response:
        newest = list(self.history.items())[-int(request.query.get("max_items", "100")) :]
        return web.json_response(dict(newest))

    async def _one_history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=PICTURE + request.query["filename"].encode(), content_type="image/png")

    async def _upload(self, request: web.Request) -> web.Response:
        data = await request.post()
        image = data["image"]
        assert isinstance(image, web.FileField)
        self.uploads[image.filename] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": "", "type": "input"})

    async def _stats(self, _: web.Request) -> web.Response:
        device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": 24_000_000, "vram_free": 20_000_000}
        return web.json_response({"system": {"os": "posix", "comfyui_version": "0.3.64"}, "devices": [device]})

    async def _exec_info(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": len(self.pending) + len(self.running)}})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response(["sd15.safetensors"])


def _refusal(unknown: dict[str, Any]) -> dict[str, Any]:
    key, node = next(iter(unknown.items()))
    told = {"type": "value_not_in_list", "message": "Value not in list", "details": "sampler: 'x' not in ['euler']"}
    return {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "",
            "extra_info": {},
        },
        "node_errors": {key: {"errors": [told], "dependent_outputs": [], "class_type": node["class_type"]}},
    }


@asynccontextmanager
async def comfyui() -> AsyncIterator[tuple[ComfyStub, str]]:
    stub = ComfyStub()
    runner = web.AppRunner(stub.app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield stub, f"http://{host}:{port}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":  # as a process of its own, to be killed
    web.run_app(ComfyStub().app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
