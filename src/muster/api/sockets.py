"""The monitor's live events over a WebSocket, for those who cannot read server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import structlog
from litestar import WebSocket, websocket
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery

from muster.api.events import names_in
from muster.api.plane import ThePlane
from muster.events.selection import Wish

log = structlog.get_logger()

AnySocket = WebSocket[Any, Any, State]

_GOING_AWAY = 1001
_INTERNAL_ERROR = 1011
_ID, _DATA = b"id: ", b"data: "


@websocket("/ws/monitor/{client_id:str}")
async def monitor_socket(
    socket: AnySocket,
    plane: ThePlane,
    client_id: FromPath[str],
    machines: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> None:
    """Send what GET /api/events/monitor sends, each event a message; its id in the log is its `event_id`.

    `after` goes on behind an id, `machines` names those wanted. What the caller says is not listened to.
    """
    await socket.accept()
    frames = plane.hub.monitor(after, Wish(machines=names_in(machines)))
    await converse(socket, client_id, _send(socket, frames), _until_gone(socket))


async def converse(
    socket: AnySocket, client_id: str, telling: Coroutine[Any, Any, None], hearing: Coroutine[Any, Any, None]
) -> None:
    """Do both until the caller has gone, which ends `hearing`, or this control plane stops, which ends `telling`."""
    tell, hear = asyncio.ensure_future(telling), asyncio.ensure_future(hearing)
    try:
        await asyncio.wait((tell, hear), return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in (hear, tell) if task.done()]
    finally:
        for task in (tell, hear):
            task.cancel()
        await asyncio.gather(tell, hear, return_exceptions=True)
    error = next((found for task in ended if (found := task.exception()) is not None), None)
    if error is not None:
        log.error("socket_broke", client_id=client_id, exc_info=error)
        await socket.close(code=_INTERNAL_ERROR, reason="something broke in the control plane; its log has the details")
    elif hear not in ended:
        await socket.close(code=_GOING_AWAY, reason="this control plane stops: connect again")


async def _send(socket: AnySocket, frames: AsyncGenerator[bytes, None]) -> None:
    """Wait for a slow reader with every message: what comes meanwhile is bounded in the hub's line for him."""
    async with aclosing(frames):
        async for joined in frames:
            for message in messages_in(joined):
                await socket.send_text(message.decode())


async def _until_gone(socket: AnySocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def messages_in(frames: bytes) -> Iterator[bytes]:
    """Take the events out of server-sent frames; comments are for proxies and have no message."""
    for frame in frames.split(b"\n\n"):
        event_id = b""
        for line in frame.split(b"\n"):
            if line.startswith(_ID):
                event_id = line[len(_ID) :]
            elif line.startswith(_DATA):
                body = line[len(_DATA) :]
                yield b'{"event_id":"%b",%b' % (event_id, body[1:]) if event_id else body
