from collections.abc import AsyncIterator

import grpc
import pytest

from muster.domain.node import Node
from tests.contract.links.grpc_served import GrpcServed
from tests.planes import PlaneUnderTest, running_plane


@pytest.fixture
async def plane() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane() as plane:
        yield plane


@pytest.fixture
async def served(plane: PlaneUnderTest) -> AsyncIterator[GrpcServed]:
    """Serve a whole control plane in memory over gRPC."""

    def known() -> list[Node]:
        return plane.fleet.nodes()

    served = GrpcServed(plane.ingest, plane.jobs, known=known)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def channel(served: GrpcServed) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        yield channel
