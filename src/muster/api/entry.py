"""The door of the API: every answer carries a correlation id, and nobody passes without the right to."""

import http
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from muster.access.book import Caller
from muster.access.roles import SEES_OWN_JOBS_ONLY
from muster.access.routes import right_for
from muster.api.http_figures import HttpFigures
from muster.api.plane import Plane
from muster.api.problems import body_of, headers_of
from muster.control.access import Access
from muster.errors import JobNotFound, MusterError
from muster.ids import JobId
from muster.logs.own import speak_about

# A browser's EventSource and WebSocket cannot send headers: there the token may be in the query.
_STREAMS = ("/api/events/", "/api/jobs/", "/v1/heartbeats/", "/v2/tasks/", "/ws/")
_OF_AGENTS = ("/api/agent/", "/v1/hive-heartbeat", "/v2/nodes/")
_CORRELATION = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_WEBSOCKET = "WS"
ADMIT = "muster.admit"  # in the state of a WebSocket: judges its caller anew, for each thing that he asks there
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013
_REASON_BYTES_MAX = 120  # RFC 6455, 5.5: 125 with the code


NoteRequest = Callable[[str, dict[str, Any]], None]


class Entry:
    """ASGI middleware around the framework. Handlers find the caller as `request.user`."""

    def __init__(self, app: ASGIApp, access: Access, figures: HttpFigures, note: NoteRequest = lambda *_: None) -> None:
        self._app = app
        self._access = access
        self._figures = figures
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == ScopeType.HTTP:
            await self._answer(cast("HTTPScope", scope), receive, send)
        elif kind == ScopeType.WEBSOCKET:
            await self._converse(scope, receive, send)
        else:  # the framework's own start and stop
            await self._app(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        asked = headers.get(b"x-correlation-id", b"")
        correlation = asked if _CORRELATION.match(asked) else f"req-{secrets.token_hex(8)}".encode()

        speak_about(correlation_id=correlation.decode())
        started_s = time.monotonic()
        status = 0

        if scope["method"] == HttpMethod.HEAD and not scope["path"].startswith(_STREAMS):
            # Load balancers and Ollama's own clients probe with HEAD; the server below leaves the body out.
            scope = cast("HTTPScope", {**scope, "method": HttpMethod.GET})

        started_s = time.monotonic()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                took_s = time.monotonic() - started_s
                self._figures.answered(scope["method"], scope.get("path_template"), message["status"], took_s)
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-correlation-id", correlation)]
            await send(message)

        try:
            scope["user"] = self._admit(scope, headers, scope["method"])
        except MusterError as error:
            await refuse(error, send_marked, scope["path"])
        else:
            await self._app(scope, receive, send_marked)
        caller: Caller | None = scope.get("user")
        if _is_worth_noting(scope, status):
            self._note(
                "request",
                {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "took_s": round(time.monotonic() - started_s, 4),
                    "by": None if caller is None else caller.name,
                    "correlation_id": correlation.decode(),
                },
            )

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            scope["user"] = self._admit(scope, headers, _WEBSOCKET)
        except MusterError as error:
            # Accepted first: a browser shows the code and the reason of a close, but nothing of a refused handshake.
            await receive()
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            code = _TRY_AGAIN_LATER if error.retriable else _POLICY_VIOLATION
            reason = error.message.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
            await send({"type": "websocket.close", "code": code, "reason": reason})
        else:
            scope["state"] = {**scope.get("state", {}), ADMIT: lambda: self._admit(scope, headers, _WEBSOCKET)}
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes], method: str) -> Caller:
        path = scope["path"]
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            shown = b""
        if not shown and method in {HttpMethod.GET, _WEBSOCKET} and path.startswith(_STREAMS):
            query = parse_qs(scope["query_string"].decode("latin-1"))  # as text: others may hold any character
            shown = query.get("token", [""])[0].encode()
        return self._access.admit(shown.strip(), right_for(method, path))


def _is_worth_noting(scope: HTTPScope, status: int) -> bool:
    """Leave out who only looks, and what agents say all the time."""
    if status >= http.HTTPStatus.BAD_REQUEST:
        return True
    return scope["method"] not in {HttpMethod.GET, HttpMethod.HEAD} and not scope["path"].startswith(_OF_AGENTS)


async def refuse(error: MusterError, send: Send, path: str = "") -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(name.lower().encode(), value.encode()) for name, value in headers_of(error).items()]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(body_of(error, path)), "more_body": False})


class OwnOnly:
    """A guard of all routes about one job or node: to whom only his own are, that is all that there is."""

    def __init__(self, current: Callable[[], Plane]) -> None:
        self._current = current

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        caller: Caller = connection.user
        if (node_id := connection.path_params.get("node_id")) is not None:
            caller.check_speaks_for(node_id)
        job_id = connection.path_params.get("job_id") or connection.path_params.get("task_id")
        if job_id is None or caller.role not in SEES_OWN_JOBS_ONLY:
            return
        job = await self._current().jobs.get(JobId(job_id))
        if not caller.sees_jobs_of(job.spec.submitted_by):
            raise JobNotFound(f"no job {job_id!r} of yours", field="job_id")
