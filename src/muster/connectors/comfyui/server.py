"""ComfyUI's HTTP API, as far as a job needs it: every call bounded, every refusal in words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from msgspec import Struct, field

from muster.connectors.comfyui.words import refusal_in_words
from muster.connectors.engine import Engine, EngineLimits, failures_named, refusal
from muster.errors import InvalidInput, PayloadTooLarge, UpstreamFailed

_OK = 200
_BAD_REQUEST = 400
_NOT_FOUND = 404
_CHUNK_BYTES = 256 * 1024
_HISTORY_LOOKED_AT = 16  # the newest: an attempt that was interrupted is not further back
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # a preview of a large video model

Json = dict[str, Any]


class ComfyLimits(Struct, frozen=True, kw_only=True):
    """`silence_s` counts while ComfyUI works on the prompt and says nothing of it; what waits in its queue may wait."""

    silence_s: float = 600.0
    look_every_s: float = 3.0  # at its history, besides listening
    lost_s: float = 15.0  # nothing answers at all
    preview_every_s: float = 2.0
    preview_bytes_max: int = 1_048_576
    file_bytes_max: int = 1024**3
    engine: EngineLimits = field(
        default_factory=lambda: EngineLimits(look_s=30.0, look_bytes_max=16 * 1024 * 1024, first_token_s=120.0)
    )


class Standing(Struct, frozen=True, kw_only=True):
    """Where a prompt stands: `ended` is its entry in the history; none of the three: ComfyUI does not know it."""

    waiting: bool = False
    running: bool = False
    ended: Json | None = None

    @property
    def is_known(self) -> bool:
        return self.waiting or self.running or self.ended is not None


class ComfyServer:
    def __init__(self, session: aiohttp.ClientSession, base: str, limits: ComfyLimits) -> None:
        self._session = session
        self._engine = Engine(session, limits.engine)
        self._limits = limits
        self._base = base

    async def submit(self, graph: Json, client_id: str, mark: Json, extra_pnginfo: Json | None) -> str:
        """Return the prompt's id. `mark` stays with it in queue and history, by which it is found again."""
        extra: Json = {"muster": mark} | ({"extra_pnginfo": extra_pnginfo} if extra_pnginfo else {})
        body = {"prompt": graph, "client_id": client_id, "extra_data": extra}
        look = await self._engine.look(f"{self._base}/prompt", body)
        value = look.value if isinstance(look.value, dict) else {}
        if look.status == _BAD_REQUEST:
            raise InvalidInput(refusal_in_words(value), field="payload.prompt", node_errors=value.get("node_errors"))
        if look.status != _OK:
            raise refusal(look.status, value)
        if not isinstance(prompt_id := value.get("prompt_id"), str):
            raise UpstreamFailed(f"{self._base} took the prompt without saying its id")
        return prompt_id

    async def find(self, mark: Json) -> str | None:
        """Return the id of a prompt that carries this job's mark and may still come to its end, or has."""
        queue, history = await asyncio.gather(
            self._read("/queue"), self._read(f"/history?max_items={_HISTORY_LOOKED_AT}")
        )
        for entry in (*queue.get("queue_running", ()), *queue.get("queue_pending", ())):
            if _mark_of(entry) == mark:
                return str(entry[1])
        for prompt_id, entry in reversed(history.items()):
            if _mark_of(entry.get("prompt")) == mark and _succeeded(entry):
                return str(prompt_id)
        return None

    async def standing(self, prompt_id: str) -> Standing:
        """Ask the queue first: what ends in between is then in the history."""
        queue = await self._read("/queue")
        if _has(queue.get("queue_running"), prompt_id):
            return Standing(running=True)
        if _has(queue.get("queue_pending"), prompt_id):
            return Standing(waiting=True)
        return Standing(ended=(await self._read(f"/history/{prompt_id}")).get(prompt_id))

    async def withdraw(self, prompt_id: str) -> None:
        """Stop it where it is. `/interrupt` of older versions ends what runs, whatever it is: so ask what that is."""
        standing = await self.standing(prompt_id)
        if standing.waiting:
            await self._engine.look(f"{self._base}/queue", {"delete": [prompt_id]})
            standing = await self.standing(prompt_id)  # its turn may have come in between
        if standing.running:
            await self._engine.look(f"{self._base}/interrupt", {"prompt_id": prompt_id})

    async def send_image(self, path: Path, name: str) -> str:
        """Return the name under which the graph finds it."""
        url = f"{self._base}/upload/image"
        with failures_named(url, f"within {self._limits.engine.first_token_s:g} s"), path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("image", file, filename=name, content_type="application/octet-stream")
            form.add_field("overwrite", "true")
            async with (
                asyncio.timeout(self._limits.engine.first_token_s),
                self._session.post(url, data=form, allow_redirects=False) as response,
            ):
                if response.status != _OK:
                    raise refusal(response.status, None, await response.content.read(_CHUNK_BYTES))
                told = await response.json(content_type=None)
        folder = told.get("subfolder") or ""
        return f"{folder}/{told['name']}" if folder else str(told["name"])

    async def fetch(self, output: Json, into: Path) -> None:
        query = urlencode({key: str(output.get(key) or "") for key in ("filename", "subfolder", "type")})
        url, silence_s = f"{self._base}/view?{query}", self._limits.engine.first_token_s
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=silence_s)
        size = 0
        with failures_named(url, f"within {silence_s:g} s"), into.open("wb") as file:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                if response.status != _OK:
                    raise UpstreamFailed(f"{url} answered with status {response.status}")
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > self._limits.file_bytes_max:
                        raise PayloadTooLarge(
                            f"{output.get('filename')} has more than {self._limits.file_bytes_max} bytes"
                        )
                    await asyncio.to_thread(file.write, chunk)

    @asynccontextmanager
    async def listening(self, client_id: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = f"{self._base}/ws?{urlencode({'clientId': client_id})}"
        with failures_named(url, "in time"):
            async with self._session.ws_connect(
                url,
                timeout=aiohttp.ClientWSTimeout(ws_close=0.2),
                heartbeat=20.0,
                max_msg_size=_MESSAGE_BYTES_MAX,
                autoclose=True,
            ) as socket:
                yield socket

    async def _read(self, path: str) -> Json:
        look = await self._engine.look(f"{self._base}{path}")
        if look.status == _NOT_FOUND and path.startswith("/history/"):
            return {}
        if look.status != _OK or not isinstance(look.value, dict):
            raise UpstreamFailed(f"{self._base}{path} answered with status {look.status}, and not what was asked for")
        return look.value


def _mark_of(prompt: Any) -> Any:
    """Return our mark in ComfyUI's own form of a prompt: number, id, graph, extra data, outputs."""
    match prompt:
        case [_, str(), dict(), {"muster": mark}, *_]:
            return mark
    return None


def _succeeded(entry: Json) -> bool:
    status = entry.get("status") or {}
    return bool(status.get("completed", bool(entry.get("outputs"))))


def _has(prompts: Any, prompt_id: str) -> bool:
    return any(isinstance(entry, list) and entry[1:2] == [prompt_id] for entry in prompts or ())
