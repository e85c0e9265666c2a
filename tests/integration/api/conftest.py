from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.control.model_keeper import NodeModels
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.ports import ImageMaker
from muster.system import SystemClock, system_rng
from tests.planes import PlaneUnderTest, running_plane

Serve = Callable[..., AbstractAsyncContextManager["Served"]]


class Served:
    """A control plane in memory behind the real front, and a client that speaks to it."""

    def __init__(self, plane: PlaneUnderTest, url: str, client: aiohttp.ClientSession) -> None:
        self.plane = plane
        self.url = url
        self.client = client


@asynccontextmanager
async def serving(
    token: str = "", *, images: Callable[[PlaneUnderTest], ImageMaker | None] = lambda _: None, **options: Any
) -> AsyncIterator[Served]:
    async with running_plane(token=token, **options) as plane:
        gateway = Gateway(
            plane.fleet,
            clock=SystemClock(),
            rng=system_rng(),
            authenticate=plane.access.refusal,
            who=plane.access.who,
            keeper=NodeModels(plane.commands, plane.fleet),
            account_of=plane.access.account,
            streams=plane.store.streams,
            images=images(plane),
            on_finished=lambda finished: plane.metering.take(*[one.use for one in finished if one.use]),
        )
        plane.gateway_view = gateway.view
        plane.request_view = gateway.explain
        front = Front(gateway, plane.app, [("127.0.0.1", 0)])
        await front.start()
        host, port = front.addresses[0]
        url = f"http://{host}:{port}"
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=20)) as client:
            yield Served(plane, url, client)
        await plane.hub.stop()
        await plane.telemetry.stop()
        await plane.jobs.stop()
        await front.stop(2.0)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served
