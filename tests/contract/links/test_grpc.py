"""What only a stream over a network can do to a link."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from muster.errors import (
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    SetupError,
    Unauthorized,
    UpstreamFailed,
    UpstreamTimeout,
)
from muster.links.calls import CALLS
from muster.links.grpc.agent_control_pb2 import Call, Reply
from muster.links.grpc.agent_side import GrpcLink
from muster.links.grpc.control_side import GrpcLimits
from muster.links.grpc.service import CALLS_MAX, CONNECT
from muster.links.problems import error_told
from muster.wire import ClaimReply, ClaimRequest, RegistrationReply, decode, encode
from tests.certificates import Certificates
from tests.contract.links.grpc_served import GrpcServed, grpc_served, open_grpc_link
from tests.contract.links.planes import EXCHANGES, NODE, SESSION, WORKER, NotingPlane
from tests.relay import Relay
from tests.waiting import eventually

REGISTRATION = EXCHANGES[0][1]
DONE = next(message.done for name, message, _ in EXCHANGES if name == "claim")
REGISTERED = RegistrationReply(node_id=NODE, next_heartbeat_ms=2500)
CLAIM = ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=20)

AGING = GrpcLimits(stream_age_s=0.05)

RawStream = grpc.aio.StreamStreamCall[Call, Reply]


@pytest.fixture
def plane() -> NotingPlane:
    plane = NotingPlane()
    plane.reply = REGISTERED
    return plane


@pytest.fixture
async def served(plane: NotingPlane) -> AsyncIterator[GrpcServed]:
    async with grpc_served(plane, plane) as served:
        yield served


@asynccontextmanager
async def raw_stream(served: GrpcServed) -> AsyncIterator[RawStream]:
    """Speak the protocol by hand."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        connect: grpc.aio.StreamStreamMultiCallable[Call, Reply] = channel.stream_stream(
            CONNECT, request_serializer=Call.SerializeToString, response_deserializer=Reply.FromString
        )
        yield connect()


async def reply_to(stream: RawStream, call: Call) -> Reply:
    await stream.write(call)
    reply = await stream.read()
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b'{"facts": 3}', b"null"], ids=repr)
async def test_a_malformed_body_is_refused_and_reaches_nobody(
    served: GrpcServed, plane: NotingPlane, name: str, body: bytes
) -> None:
    async with raw_stream(served) as stream:
        reply = await reply_to(stream, Call(id=1, name=name, body=body))
    assert isinstance(error_told(reply.error), InvalidInput)
    assert plane.heard == []


async def test_an_unknown_call_is_not_found_and_the_stream_goes_on(served: GrpcServed) -> None:
    async with raw_stream(served) as stream:
        reply = await reply_to(stream, Call(id=1, name="dance", body=b"{}"))
        assert isinstance(error_told(reply.error), NotFound)
        reply = await reply_to(stream, Call(id=2, name="register", body=encode(REGISTRATION)))
    assert (reply.id, decode(reply.body, RegistrationReply)) == (2, REGISTERED)


async def test_an_id_in_use_is_refused(served: GrpcServed, plane: NotingPlane) -> None:
    plane.hold = asyncio.Event().wait
    async with raw_stream(served) as stream:
        await stream.write(Call(id=7, name="claim", body=encode(CLAIM)))
        reply = await reply_to(stream, Call(id=7, name="claim", body=encode(CLAIM)))
    assert isinstance(error_told(reply.error), InvalidInput)


async def test_calls_without_a_reply_are_bounded(served: GrpcServed, plane: NotingPlane) -> None:
    plane.hold = asyncio.Event().wait
    async with raw_stream(served) as stream:
        for number in range(1, CALLS_MAX + 1):
            await stream.write(Call(id=number, name="claim", body=encode(CLAIM)))
        reply = await reply_to(stream, Call(id=0, name="claim", body=encode(CLAIM)))
    assert (reply.id, type(error_told(reply.error))) == (0, QueueFull)
    assert len(plane.heard) == CALLS_MAX


async def test_a_message_over_the_bound_is_refused_and_the_stream_goes_on(plane: NotingPlane) -> None:
    claim = ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, done=DONE * 100)
    limits = GrpcLimits(body_bytes_max=4096)
    async with grpc_served(plane, plane, limits=limits) as served, open_grpc_link(served.url) as link:
        with pytest.raises(PayloadTooLarge, match="4096 bytes"):
            await link.claim(claim)
        assert await link.register(REGISTRATION) == REGISTERED


async def test_a_fault_in_the_control_plane_is_a_failure_that_may_pass(served: GrpcServed, plane: NotingPlane) -> None:
    plane.error = ZeroDivisionError()
    async with open_grpc_link(served.url) as link:
        with pytest.raises(UpstreamFailed, match="internal_error"):
            await link.register(REGISTRATION)


async def test_a_server_that_is_gone_is_a_failure_and_one_that_is_back_answers(
    served: GrpcServed, plane: NotingPlane
) -> None:
    opened: list[None] = []
    async with open_grpc_link(served.url, on_open=lambda: opened.append(None)) as link:
        assert await link.register(REGISTRATION) == REGISTERED
        await served.stop()
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            await link.register(REGISTRATION)
        await served.start()
        assert await eventually_registered(link) == REGISTERED
        assert len(opened) == 2
    assert served.ended == []  # nobody is gone because we stopped


async def eventually_registered(link: GrpcLink) -> RegistrationReply:
    async def registered() -> RegistrationReply | None:
        try:
            return await link.register(REGISTRATION)
        except UpstreamFailed:
            return None

    reply = await eventually(registered)
    assert reply is not None
    return reply


async def test_a_stream_that_grew_old_is_replaced_and_no_call_notices(plane: NotingPlane) -> None:
    opened: list[None] = []
    async with (
        grpc_served(plane, plane, limits=AGING) as served,
        open_grpc_link(served.url, on_open=lambda: opened.append(None)) as link,
    ):
        while len(opened) < 4:
            assert await link.register(REGISTRATION) == REGISTERED


async def test_a_call_without_a_reply_is_sent_again_on_the_next_stream(plane: NotingPlane) -> None:
    let_go = asyncio.Event()
    plane.hold, plane.reply = let_go.wait, ClaimReply()
    async with grpc_served(plane, plane, limits=AGING) as served, open_grpc_link(served.url) as link:
        claim = asyncio.create_task(link.claim(CLAIM))
        await eventually(lambda: len(plane.heard) >= 2)
        let_go.set()
        assert await claim == ClaimReply()
    assert plane.heard == [CLAIM] * len(plane.heard)


async def test_a_stream_cut_on_the_way_fails_its_calls_and_is_replaced(served: GrpcServed, plane: NotingPlane) -> None:
    async with Relay(served.port) as relay, open_grpc_link(f"grpc://127.0.0.1:{relay.port}") as link:
        await link.register(REGISTRATION)
        plane.hold = asyncio.Event().wait
        claim = asyncio.create_task(link.claim(CLAIM))
        await eventually(lambda: len(plane.heard) == 2)
        relay.cut()
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            await claim
        plane.hold = None
        assert await eventually_registered(link) == REGISTERED


async def test_a_half_open_connection_is_found_by_pings_and_replaced(served: GrpcServed) -> None:
    opened: list[None] = []
    async with (
        Relay(served.port) as relay,
        open_grpc_link(
            f"grpc://127.0.0.1:{relay.port}", on_open=lambda: opened.append(None), ping_every_s=0.2, ping_timeout_s=0.2
        ) as link,
    ):
        await link.register(REGISTRATION)
        relay.swallow()  # open for both ends, and nothing comes through
        await eventually(lambda: len(opened) == 2, 30)
        assert await link.register(REGISTRATION) == REGISTERED


async def test_a_slow_server_is_given_up_at_the_deadline(served: GrpcServed, plane: NotingPlane) -> None:
    plane.hold = asyncio.Event().wait
    async with open_grpc_link(served.url, timeout_s=0.5) as link:
        await eventually(lambda: link.is_open)
        with pytest.raises(UpstreamTimeout, match=r"register within 0\.5 s"):
            await link.register(REGISTRATION)
        with pytest.raises(UpstreamTimeout, match=r"claim within 0\.6 s"):
            await link.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=0.1))


async def test_what_listens_but_does_not_answer_is_a_failure() -> None:
    async with Relay(0) as relay:
        relay.swallow()
        async with open_grpc_link(f"grpc://127.0.0.1:{relay.port}", timeout_s=0.2) as link:
            with pytest.raises(UpstreamFailed):
                await link.register(REGISTRATION)


async def test_a_wrong_token_is_told_as_such(plane: NotingPlane) -> None:
    async with grpc_served(plane, plane, token="secret") as served:
        for token in ("wrong", None):
            async with open_grpc_link(served.url, token) as link:
                with pytest.raises(Unauthorized, match="who are you"):
                    await link.register(REGISTRATION)
    assert plane.heard == []


async def test_a_closed_link_says_so(served: GrpcServed) -> None:
    link = GrpcLink(served.url, pause_s=lambda _: 0.0)
    for _ in range(2):
        with pytest.raises(UpstreamFailed, match="closed"):
            await link.register(REGISTRATION)
        await link.start()
        await link.stop()


async def test_the_end_of_a_stream_is_told_with_the_node_that_was_heard_on_it(served: GrpcServed) -> None:
    async with open_grpc_link(served.url) as silent:
        await eventually(lambda: silent.is_open)
    async with open_grpc_link(served.url) as link:
        await link.register(REGISTRATION)
        assert served.ended == []
    await eventually(lambda: served.ended == [NODE])


async def test_over_tls_the_certificate_must_be_trusted(plane: NotingPlane, tmp_path: Path) -> None:
    ours, others = Certificates("127.0.0.1"), Certificates("127.0.0.1")
    served = GrpcServed(plane, plane, tls=lambda: (ours.certificate, ours.key))
    await served.start()
    async with open_grpc_link(served.url, trusted_pem=ours.authority) as link:
        assert await link.register(REGISTRATION) == REGISTERED
    async with open_grpc_link(served.url, trusted_pem=others.authority) as link:
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            await link.register(REGISTRATION)
    async with open_grpc_link(served.url.replace("grpcs", "grpc")) as link:
        with pytest.raises(UpstreamFailed):
            await link.register(REGISTRATION)
    await served.stop()


async def test_a_renewed_certificate_is_shown_to_new_connections(plane: NotingPlane) -> None:
    old, new = Certificates("127.0.0.1"), Certificates("127.0.0.1")
    shown = old
    served = GrpcServed(plane, plane, tls=lambda: (shown.certificate, shown.key))
    await served.start()
    async with open_grpc_link(served.url, trusted_pem=old.authority) as staying:
        assert await staying.register(REGISTRATION) == REGISTERED
        shown = new
        async with open_grpc_link(served.url, trusted_pem=new.authority) as link:
            assert await link.register(REGISTRATION) == REGISTERED
        assert await staying.register(REGISTRATION) == REGISTERED
    await served.stop()


@pytest.mark.parametrize("url", ["http://host:1", "grpc://", "grpc://host:port", "host:50051"])
def test_a_url_that_is_none_of_grpc_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="no gRPC address"):
        GrpcLink(url, pause_s=lambda _: 0.0)
