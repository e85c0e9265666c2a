"""One prompt after the other, told in ComfyUI's order of messages."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from muster.connectors.comfyui.simulated.nodes import KINDS, Json, batch_of, in_order, picture, signatures, steps_of

_HISTORY_MAX = 1000
_CACHED_MAX = 1000

Prompt = list[Any]  # number, id, graph, extra data, outputs: ComfyUI's own form
Send = Callable[[str | None, str, Json], Awaitable[None]]  # to a client; None: to all


class _Interrupted(Exception):
    pass


class Executor:
    """`send` tells a client, `folder` takes the pictures."""

    def __init__(self, send: Send, folder: Path, step_s: float) -> None:
        self._send = send
        self._folder = folder
        self._step_s = step_s
        self.pending: list[Prompt] = []
        self.running: list[Prompt] = []
        self.history: OrderedDict[str, Json] = OrderedDict()
        self._cached: OrderedDict[str, None] = OrderedDict()
        self._work = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._pictures = 0

    @property
    def remaining(self) -> int:
        return len(self.pending) + len(self.running)

    async def put(self, prompt: Prompt) -> None:
        self.pending.append(prompt)
        self._work.set()
        await self._tell_status()

    def interrupt(self, prompt_id: str | None) -> None:
        """End what runs; with an id only if it is that one."""
        if self.running and prompt_id in {None, self.running[0][1]}:
            self._interrupt.set()

    async def run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self.pending:
                prompt = self.pending.pop(0)
                self.running.append(prompt)
                self._interrupt.clear()
                self.history[prompt[1]] = await self._execute(prompt)
                self.running.remove(prompt)
                while len(self.history) > _HISTORY_MAX:
                    self.history.popitem(last=False)
                await self._tell_status()
                await self._send(prompt[3].get("client_id"), "executing", {"node": None, "prompt_id": prompt[1]})

    async def _execute(self, prompt: Prompt) -> Json:
        _, prompt_id, graph, extra, _ = prompt
        messages: list[Any] = []
        outputs: Json = {}

        async def tell(kind: str, **data: Any) -> None:
            told = data | {"prompt_id": prompt_id}
            if kind.startswith("execution_"):
                told["timestamp"] = round(time.time() * 1000)
                messages.append([kind, told])
            await self._send(extra.get("client_id"), kind, told)

        keys = in_order(graph)
        signed = signatures(graph, keys)
        cached = [key for key in keys if signed[key] in self._cached]
        await tell("execution_start")
        await tell("execution_cached", nodes=cached)
        done: list[str] = []
        status = "success"
        try:
            for key in keys:
                if key not in cached:
                    await tell("executing", node=key, display_node=key)
                    await self._work_on(key, graph[key], tell)
                kind = KINDS[graph[key]["class_type"]]
                if kind.keeps:
                    kept = [await self._keep(kind.keeps, graph[key], signed[key]) for _ in range(batch_of(graph))]
                    outputs[key] = {"images": kept}
                    await tell("executed", node=key, display_node=key, output=outputs[key])
                self._remember(signed[key])
                done.append(key)
            await tell("execution_success")
        except _Interrupted:
            status = "error"
            await tell("execution_interrupted", node_id=key, node_type=graph[key]["class_type"], executed=done)
        told = {"status_str": status, "completed": status == "success", "messages": messages}
        return {"prompt": prompt, "outputs": outputs, "status": told, "meta": {}}

    async def _work_on(self, key: str, node: Json, tell: Callable[..., Awaitable[None]]) -> None:
        """Take the time of its steps, and be interrupted between them as much as within one."""
        steps = steps_of(node)
        for step in range(1, steps + 1):
            await tell("progress_state", nodes={key: {"value": step - 1, "max": steps, "state": "running"}})
            try:
                async with asyncio.timeout(self._step_s):
                    await self._interrupt.wait()
            except TimeoutError:
                await tell("progress", value=step, max=steps, node=key)
        if self._interrupt.is_set():
            raise _Interrupted

    async def _keep(self, where: str, node: Json, signed: str) -> Json:
        self._pictures += 1
        prefix = str(node["inputs"].get("filename_prefix") or "ComfyUI")
        name = f"{Path(prefix).name}_{signed[:8]}_{self._pictures:05}_.png"
        folder = self._folder / where
        await asyncio.to_thread(_write, folder / name, picture(signed))
        return {"filename": name, "subfolder": "", "type": where}

    def _remember(self, signed: str) -> None:
        self._cached[signed] = None
        while len(self._cached) > _CACHED_MAX:
            self._cached.popitem(last=False)

    async def _tell_status(self) -> None:
        await self._send(None, "status", {"status": {"exec_info": {"queue_remaining": self.remaining}}})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
