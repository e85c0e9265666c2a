"""The shortest way for what comes most: heartbeats over HTTP go past the framework to where it would bring them."""

import http

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from muster.access.book import Caller
from muster.api.entry import refuse
from muster.api.plane import Plane
from muster.api.problems import Unexpected, too_large
from muster.errors import MusterError
from muster.links.guarded import GuardedLink
from muster.links.http.control_side import PREFIX, handle

log = structlog.get_logger()

_CALL = "heartbeat"
_PATH = PREFIX + _CALL


class Heartbeats:
    """ASGI middleware behind the door, which has said who calls. A heartbeat is answered at once: nobody waits."""

    def __init__(self, app: ASGIApp, plane: Plane) -> None:
        self._app = app
        self._plane = plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] != _PATH or scope["method"] != HttpMethod.POST:
            await self._app(scope, receive, send)
            return
        scope["path_template"] = _PATH
        plane = self._plane
        caller: Caller = scope["user"]
        link = GuardedLink(caller.admitted, plane.ingest, plane.jobs, plane.access)
        try:
            answer = await handle(_CALL, await _body(receive, plane.request_bytes_max), link, link)
        except MusterError as error:
            await refuse(error, send)
        except Exception:
            log.exception("request_failed", path=_PATH)
            await refuse(Unexpected("something broke in the control plane; its log has the details"), send)
        else:
            await _answer(answer or b"", send)


async def _body(receive: Receive, bytes_max: int) -> bytes:
    """Read it all; what has left without its body is taken to have sent none."""
    parts = []
    left = bytes_max
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message["body"])
        left -= len(message["body"])
        if left < 0:
            raise too_large(bytes_max)
        if not message["more_body"]:
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _answer(body: bytes, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": http.HTTPStatus.OK, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
