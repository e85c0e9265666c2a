"""The door of the API: every answer carries a correlation id; with a token set, callers must show it."""

import re
import secrets
from urllib.parse import parse_qs

import msgspec
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from muster.errors import Unauthorized

_OPEN = frozenset({"/", "/_/ui", "/health", "/version", "/metrics", "/favicon.ico"})
_OPEN_BELOW = "/web/"
_STREAMS = ("/api/events/", "/api/jobs/")  # a browser's EventSource cannot send headers: it may use ?token=
_CORRELATION = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")


class Entry:
    """ASGI middleware around the framework."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = headers.get(b"x-correlation-id", b"")
        correlation = asked if _CORRELATION.match(asked) else f"req-{secrets.token_hex(8)}".encode()

        if scope["method"] == HttpMethod.HEAD and not scope["path"].startswith(_STREAMS):
            # Load balancers and Ollama's own clients probe with HEAD; the server below leaves the body out.
            scope = {**scope, "method": HttpMethod.GET}

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-correlation-id", correlation)]
            await send(message)

        if self._may_pass(scope, headers):
            await self._app(scope, receive, send_marked)
        else:
            await _refuse(send_marked)

    def _may_pass(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        path = scope["path"]
        if not self._token or path in _OPEN or path.startswith(_OPEN_BELOW):
            return True
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            shown = b""
        if not shown and path.startswith(_STREAMS):
            shown = parse_qs(scope["query_string"]).get(b"token", [b""])[0]
        return secrets.compare_digest(shown.strip(), self._token)


async def _refuse(send: Send) -> None:
    error = Unauthorized("a token is needed: send it as `Authorization: Bearer …` (it is the server's MUSTER_TOKEN)")
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(error.to_dict()), "more_body": False})
