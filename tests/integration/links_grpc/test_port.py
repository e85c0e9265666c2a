"""The gRPC port as the control plane opens it: where it may, and for whom."""

import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.app.grpc_port import GrpcPort
from muster.domain.node import NodeFacts
from muster.errors import Forbidden, SetupError, Unauthorized
from muster.ids import NodeId
from muster.links.grpc.agent_control_pb2 import FleetStatusReply, FleetStatusRequest
from muster.links.grpc.service import SERVICE
from muster.settings import Settings
from muster.wire import Heartbeat
from tests.contract.links.grpc_served import open_grpc_link
from tests.muster_process import free_port
from tests.planes import PlaneUnderTest, running_plane

DEFAULT = Settings().grpc_listen


@pytest.fixture
async def guarded() -> AsyncIterator[PlaneUnderTest]:
    async with running_plane(token="the-token-of-the-settings") as plane:
        yield plane


def port_of(plane: PlaneUnderTest, settings: Settings) -> GrpcPort:
    return GrpcPort(settings, None, plane.fleet, plane.access, plane.ingest, plane.jobs, plane.clock)


@asynccontextmanager
async def served_at(plane: PlaneUnderTest) -> AsyncIterator[str]:
    port = port_of(plane, Settings(grpc_listen=f"127.0.0.1:{free_port()}"))
    await port.start()
    assert port.url is not None
    try:
        yield port.url
    finally:
        await port.stop()


async def token_of(plane: PlaneUnderTest, role: Role) -> str:
    _, text = await plane.access.create(Wanted(name=f"a-{role}", role=role))
    return text


def beat(node_id: str, seq: int) -> Heartbeat:
    return Heartbeat(facts=NodeFacts(node_id=NodeId(node_id)), boot_id="b", seq=seq, heartbeat_interval_s=1.0)


async def status_asked_by(url: str, token: str | None) -> FleetStatusReply:
    async with grpc.aio.insecure_channel(url.removeprefix("grpc://")) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/GetFleetStatus",
            request_serializer=FleetStatusRequest.SerializeToString,
            response_deserializer=FleetStatusReply.FromString,
        )
        reply: FleetStatusReply = await ask(
            FleetStatusRequest(), metadata=(("authorization", f"Bearer {token}"),) if token else ()
        )
        return reply


async def test_agents_speak_and_viewers_look(guarded: PlaneUnderTest) -> None:
    agent, viewer = await token_of(guarded, Role.AGENT), await token_of(guarded, Role.VIEWER)
    async with served_at(guarded) as url:
        async with open_grpc_link(url, agent) as link:
            assert not (await link.heartbeat(beat("n1", 1))).known
        assert (await status_asked_by(url, viewer)).total_nodes == 1
        for token, code in (
            (agent, grpc.StatusCode.PERMISSION_DENIED),
            (None, grpc.StatusCode.UNAUTHENTICATED),
            ("no-token-of-ours", grpc.StatusCode.UNAUTHENTICATED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await status_asked_by(url, token)
            assert caught.value.code() is code
        async with open_grpc_link(url, viewer) as link:
            with pytest.raises(Forbidden):
                await link.heartbeat(beat("n2", 1))
    assert [node.node_id for node in guarded.fleet.nodes()] == ["n1"]


async def test_a_token_that_was_revoked_counts_no_more_on_a_stream_that_is_open(guarded: PlaneUnderTest) -> None:
    token, text = await guarded.access.create(Wanted(name="an-agent", role=Role.AGENT))
    async with served_at(guarded) as url, open_grpc_link(url, text) as link:
        await link.heartbeat(beat("n1", 1))
        await guarded.access.revoke(token.token_id)
        with pytest.raises(Unauthorized, match="revoked"):
            await link.heartbeat(beat("n1", 2))


async def test_none_is_no_port(plane: PlaneUnderTest) -> None:
    port = port_of(plane, Settings(grpc_listen="none"))
    await port.start()
    assert port.url is None
    await port.stop()


async def test_the_default_port_is_an_offer_and_any_other_a_must(plane: PlaneUnderTest) -> None:
    with socket.socket() as default, socket.socket() as other:
        with contextlib.suppress(OSError):  # then somebody else has it, which is as good
            default.bind(("127.0.0.1", int(DEFAULT.rpartition(":")[2])))
        other.bind(("127.0.0.1", 0))
        port = port_of(plane, Settings())
        await port.start()
        assert port.url is None
        await port.stop()

        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(SetupError, match=taken):
            await port_of(plane, Settings(grpc_listen=taken)).start()


async def test_without_the_packages_only_what_was_asked_for_is_an_error(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    port = port_of(plane, Settings())
    await port.start()
    assert port.url is None
    with pytest.raises(SetupError) as caught:
        await port_of(plane, Settings(grpc_listen=f"127.0.0.1:{free_port()}")).start()
    assert "muster[grpc]" in caught.value.next_step
