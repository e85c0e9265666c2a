"""Where other nodes of the fleet get what this one keeps: read only, by ticket, a few at a time, not too fast."""

import asyncio
import http
from pathlib import Path

import structlog
from aiohttp import web
from msgspec import Struct

from muster.access import tickets
from muster.agent.artifacts.plan import Manifest
from muster.agent.artifacts.store import ArtifactStore, Kept
from muster.clock import Clock
from muster.errors import NotFound
from muster.wire import encode

log = structlog.get_logger()

_CHUNK_BYTES = 1_048_576
_BUSY_RETRY_S = 5
_STOP_S = 1.0


class DoorRules(Struct, frozen=True, kw_only=True):
    """`host` empty: the node's own address; `port` 0: a free one; `bytes_per_s_max` of all together, 0: any."""

    host: str = ""
    port: int = 0
    uploads_max: int = 4
    bytes_per_s_max: int = 0


class Pace:
    """How long to pause so that no more than so many bytes a second go out, whoever takes them."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._paid_until_s = float("-inf")

    def pause_s(self, count: int) -> float:
        if not self._bytes_per_s:
            return 0.0
        now_s = self._clock.monotonic_s()
        self._paid_until_s = max(self._paid_until_s, now_s) + count / self._bytes_per_s
        return max(0.0, self._paid_until_s - now_s)


class Door:
    """A Lifecycle; `url` says where it is, None while it is closed."""

    def __init__(
        self,
        store: ArtifactStore,
        rules: DoorRules,
        address: str,
        ticket_key: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._rules = rules
        self._address = address
        self._ticket_key = ticket_key
        self._clock = clock
        self._pace = Pace(rules.bytes_per_s_max, clock)
        self._uploads = 0
        self._runner: web.AppRunner | None = None
        self.url: str | None = None

    async def start(self) -> None:
        """Open it; a node whose address is not this machine's own gives nothing away, and works all the same."""
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/artifacts/{digest}", self._manifest)
        app.router.add_get("/artifacts/{digest}/{path:.+}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
        await self._runner.setup()
        host = self._rules.host or self._address
        try:
            await web.TCPSite(self._runner, host, self._rules.port).start()
        except OSError as error:
            log.warning("artifacts_not_shared", host=host, port=self._rules.port, error=error.strerror or str(error))
            await self.stop()
            return
        port = self._runner.addresses[0][1]
        shown = f"[{self._address}]" if ":" in self._address else self._address
        self.url = f"http://{shown}:{port}"

    async def stop(self) -> None:
        self.url = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        kept = await self._asked_for(request)
        body = encode(Manifest(digest=kept.digest, kind=kept.kind, files=kept.files))
        return web.Response(body=body, content_type="application/json")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kept = await self._asked_for(request)
        file = next((file for file in kept.files if file.path == request.match_info["path"]), None)
        if file is None:
            raise web.HTTPNotFound(text="this artifact has no such file")
        if self._uploads >= self._rules.uploads_max:
            raise web.HTTPServiceUnavailable(text="busy", headers={"Retry-After": str(_BUSY_RETRY_S)})
        self._uploads += 1
        try:
            lease = await asyncio.to_thread(self._store.lease, kept.digest)
            try:
                return await self._send(request, self._store.file_path(kept, file.path), file.size_bytes, file.sha256)
            finally:
                lease.release()
        except NotFound:
            raise web.HTTPNotFound(text="it is not kept here any more") from None
        finally:
            self._uploads -= 1

    async def _asked_for(self, request: web.Request) -> Kept:
        digest = request.match_info["digest"]
        scheme, _, ticket = request.headers.get("Authorization", "").partition(" ")
        now_ms = self._clock.now_ms()
        if scheme.lower() != "bearer" or not tickets.is_good(self._ticket_key, ticket.strip(), digest, now_ms):
            raise web.HTTPUnauthorized(text="a ticket of this fleet's control plane is needed")
        kept = await asyncio.to_thread(self._store.get, digest)
        if kept is None:
            raise web.HTTPNotFound(text="it is not kept here any more")
        return kept

    async def _send(self, request: web.Request, path: Path, size: int, sha256: str) -> web.StreamResponse:
        tag = f'"{sha256}"'
        begin, end, is_part = _extent(request, size, tag)
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if is_part:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        response = web.StreamResponse(
            status=http.HTTPStatus.PARTIAL_CONTENT if is_part else http.HTTPStatus.OK, headers=headers
        )
        response.content_length = end - begin
        await response.prepare(request)
        with path.open("rb") as opened:
            opened.seek(begin)
            left = end - begin
            while left > 0 and (chunk := await asyncio.to_thread(opened.read, min(left, _CHUNK_BYTES))):
                if pause_s := self._pace.pause_s(len(chunk)):
                    await asyncio.sleep(pause_s)
                await response.write(chunk)
                left -= len(chunk)
        await response.write_eof()
        log.info("upload_done", file=path.name, bytes=end - begin, to=request.remote)
        return response


def _extent(request: web.Request, size: int, tag: str) -> tuple[int, int, bool]:
    """Return from where to before where, and whether that is a part that was asked for."""
    if request.headers.get("If-Range", tag) != tag:
        return 0, size, False
    try:
        asked = request.http_range
    except ValueError:
        return 0, size, False
    if asked.start is None and asked.stop is None:
        return 0, size, False
    begin, end, _ = asked.indices(size)
    if begin >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return begin, end, True
