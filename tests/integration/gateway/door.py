"""The gateway behind a real port, with a small web application for all that is not its own."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from muster.access.book import ANYBODY
from muster.clock import Clock
from muster.domain.trace import Tracer
from muster.errors import Unauthorized
from muster.gateway import Finished, Front, Gateway, GatewayLimits
from muster.gateway.admission.admission import Who
from muster.gateway.gateway import Authenticate
from muster.gateway.metering.meter import AccountOf, Watts
from muster.gateway.trust.quarantine import Change
from muster.placement.scores import Strategy
from muster.ports import StreamStore, Waker
from muster.system import SystemClock
from tests.integration.gateway.fleet import FleetTwin
from tests.integration.gateway.wire import Wire

STOP_S = 2.0


async def web(scope: Any, receive: Any, send: Any) -> None:
    """Echo a body, stream, fail, and speak WebSocket."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _echo_messages(receive, send)
    elif scope["path"] == "/fail":
        raise ValueError("on purpose")
    elif scope["path"] == "/early":
        await _answer(send, 413, b"early")
    elif scope["path"] == "/ticks":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d;" % number, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await _answer(send, 200, scope["path"].encode() + b"|" + await _body(receive))


async def _live(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _echo_messages(receive: Any, send: Any) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


class Door:
    def __init__(self, front: Front, gateway: Gateway, finished: list[Finished]) -> None:
        self.front = front
        self.gateway = gateway
        self.finished = finished
        self.wires: list[Wire] = []

    @property
    def address(self) -> tuple[str, int]:
        return self.front.addresses[0]

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    async def wire(self, trust: ssl.SSLContext | None = None) -> Wire:
        """Return a connection that is closed at the latest with the door."""
        wire = await Wire.open(self.address, trust)
        self.wires.append(wire)
        return wire

    @property
    def reserved(self) -> dict[str, int]:
        return self.gateway.stats().in_flight_by_worker


def only(token: bytes) -> Authenticate:
    """Let in who shows this token."""
    return lambda shown, _: None if shown == token else Unauthorized("send the token of this Muster")


@asynccontextmanager
async def opened(
    fleet: FleetTwin,
    *,
    limits: GatewayLimits | None = None,
    strategy: Strategy = Strategy.ROUND_ROBIN,
    authenticate: Authenticate = lambda _shown, _right: None,
    app: Any = web,
    tls: ssl.SSLContext | None = None,
    on_conduct: Callable[[Change], None] | None = None,
    waker: Waker | None = None,
    tracer: Tracer | None = None,
    who: Who = lambda _: ANYBODY,
    account_of: AccountOf | None = None,
    watts: Watts = lambda _: None,
    streams: StreamStore | None = None,
    clock: Clock | None = None,
    seed: int = 7,
) -> AsyncIterator[Door]:
    finished: list[Finished] = []
    gateway = Gateway(
        fleet,
        clock=clock or SystemClock(),
        rng=random.Random(seed),
        authenticate=authenticate,
        strategy=strategy,
        limits=limits,
        on_finished=finished.extend,
        on_conduct=on_conduct,
        waker=waker,
        tracer=tracer,
        who=who,
        account_of=account_of,
        watts=watts,
        streams=streams,
    )
    front = Front(gateway, app, [("127.0.0.1", 0)], tls=tls)
    await front.start()
    door = Door(front, gateway, finished)
    try:
        yield door
    finally:
        for wire in door.wires:
            wire.abort()
        await front.stop(STOP_S)
