"""A receiver of webhooks on a real port that checks signatures by itself."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Receiver:
    """Answers `status`; while `open` is not set it does not answer at all."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.secret: str | None = None
        self.forged = 0
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.ids.append(request.headers["webhook-id"])
        if self.secret is not None and not self._is_signed(request, body):
            self.forged += 1
        self.got.append(json.loads(body))
        await self.open.wait()
        return web.Response(status=self.status, headers=self.headers, text="" if self.status == 204 else "what it says")

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        """Check as a receiver would that knows nothing but the specification."""
        stamp = request.headers["webhook-timestamp"]
        key = base64.b64decode((self.secret or "").removeprefix("whsec_"))
        signed = f"{request.headers['webhook-id']}.{stamp}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return request.headers["webhook-signature"] == wanted and abs(time.time() - int(stamp)) < 300


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/in", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{bound}/in"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
