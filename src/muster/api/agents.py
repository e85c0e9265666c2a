"""Where agents' HTTP links end."""

import asyncio
import http
from collections.abc import Awaitable
from typing import TypeVar

from litestar import Response, post
from litestar.params import FromPath

from muster.api.plane import AnyRequest, TheCaller, ThePlane
from muster.links.guarded import GuardedLink
from muster.links.http.control_side import handle

T = TypeVar("T")

_CLIENT_CLOSED_REQUEST = 499  # as proxies log it; nobody is there to read it


@post(
    "/api/agent/{action:str}",
    tags=["agents"],
    summary="Messages of agents: register, heartbeat, events, deregister, session, claim, renew, progress, close",
    status_code=http.HTTPStatus.OK,
)
async def agent_message(
    plane: ThePlane, caller: TheCaller, request: AnyRequest, action: FromPath[str]
) -> Response[bytes]:
    body = await request.body()
    link = GuardedLink(caller.admitted, plane.ingest, plane.jobs, plane.access)
    done, answer = await _until_gone(request, handle(action, body, link, link))
    if not done:
        return Response(b"", status_code=_CLIENT_CLOSED_REQUEST)
    if answer is None:
        return Response(b"", status_code=http.HTTPStatus.NO_CONTENT)
    return Response(answer, media_type="application/json")


async def _until_gone(request: AnyRequest, work: Awaitable[T]) -> tuple[bool, T | None]:
    """Stop a claim that waits for a worker that is gone: it would take a job that nobody runs."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return True, task.result()
        return False, None
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: AnyRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
