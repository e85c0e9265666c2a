"""The control side of the HTTP link behind a small web server that can go away and come back."""

import json

from aiohttp import web

from muster.errors import MusterError
from muster.links.http.control_side import PREFIX, handle
from muster.ports import JobLink, NodeLink


class Served:
    def __init__(self, nodes: NodeLink, jobs: JobLink, token: str | None = None) -> None:
        self._nodes = nodes
        self._jobs = jobs
        self._token = token
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post(PREFIX + "{name}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401, text="who are you?")
        try:
            reply = await handle(request.path, await request.read(), self._nodes, self._jobs)
        except MusterError as error:
            return web.Response(status=error.http_status, text=json.dumps(error.to_dict()))
        return web.Response(status=204) if reply is None else web.Response(body=reply)
