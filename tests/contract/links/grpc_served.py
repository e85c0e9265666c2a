"""The control side of the gRPC link on a free port, with links to it; all of it can go away and come back."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from muster.domain.node import Node
from muster.errors import Unauthorized
from muster.ids import NodeId
from muster.links.grpc.agent_side import GrpcLink
from muster.links.grpc.control_side import FleetHooks, GrpcLimits, GrpcServer, Pem
from muster.ports import JobLink, NodeLink
from muster.system import SystemClock

RETRY_S = 0.02


class GrpcServed:
    def __init__(
        self,
        nodes: NodeLink,
        jobs: JobLink,
        *,
        token: str | None = None,
        known: Callable[[], Sequence[Node]] = list,
        tls: Callable[[], Pem] | None = None,
        limits: GrpcLimits | None = None,
    ) -> None:
        self._ends = (nodes, jobs)
        self._token = token
        self._known = known
        self._tls = tls
        self._limits = limits
        self._server: GrpcServer | None = None
        self.ended: list[NodeId] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'grpcs' if self._tls else 'grpc'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = GrpcServer(
            ("127.0.0.1", self.port),
            FleetHooks(links=self._links, nodes=lambda _: self._known(), stream_ended=self.ended.append),
            SystemClock(),
            random.Random(7),
            tls=self._tls,
            limits=self._limits,
        )
        await self._server.start()
        self.port = self._server.port

    def _links(self, shown: str | None) -> tuple[NodeLink, JobLink]:
        if shown != self._token:
            raise Unauthorized("who are you?")
        return self._ends

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None


@asynccontextmanager
async def grpc_served(
    nodes: NodeLink, jobs: JobLink, *, token: str | None = None, limits: GrpcLimits | None = None
) -> AsyncIterator[GrpcServed]:
    served = GrpcServed(nodes, jobs, token=token, limits=limits)
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


@asynccontextmanager
async def open_grpc_link(
    url: str,
    token: str | None = None,
    *,
    on_open: Callable[[], None] = lambda: None,
    trusted_pem: bytes | None = None,
    timeout_s: float = 10.0,
    ping_every_s: float = 10.0,
    ping_timeout_s: float = 5.0,
) -> AsyncIterator[GrpcLink]:
    link = GrpcLink(
        url,
        token,
        pause_s=lambda _: RETRY_S,
        on_open=on_open,
        trusted_pem=trusted_pem,
        timeout_s=timeout_s,
        ping_every_s=ping_every_s,
        ping_timeout_s=ping_timeout_s,
    )
    await link.start()
    try:
        yield link
    finally:
        await link.stop()
