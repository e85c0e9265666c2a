"""Whatever comes over a stream: nothing breaks, and nothing is kept of what does not fit."""

import asyncio
import contextlib
import json

import grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.links.calls import CALLS
from muster.links.grpc.agent_control_pb2 import Call, Reply
from muster.links.grpc.service import CONNECT
from tests.contract.links.grpc_served import grpc_served
from tests.planes import PlaneUnderTest, running_plane

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["facts", "node_id", "boot_id", "seq", "reports", "want", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
BODIES = (
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.integers(1, 200_000).map(lambda size: b"[" * size)
    | st.integers(1, 300_000).map(lambda size: b'"' + b"x" * size + b'"')
)
# Deep, long and odd, but without what a stray message may rightly do: wait, or end what is not known.
CALLS_LIKE = st.builds(
    Call,
    id=st.integers(0, 2**64 - 1),
    name=st.sampled_from(sorted(CALLS)) | st.text(max_size=30),
    body=BODIES,
    cancel=st.booleans(),
)
FRAMES = st.binary(max_size=300) | CALLS_LIKE.map(Call.SerializeToString)


@given(frames=st.lists(FRAMES, max_size=12))
@settings(max_examples=60)
def test_odd_frames_break_nothing_and_leave_nothing(frames: list[bytes]) -> None:
    asyncio.run(_odd_frames(frames))


async def _odd_frames(frames: list[bytes]) -> None:
    async with (
        running_plane() as plane,
        grpc_served(plane.ingest, plane.jobs) as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
    ):
        await _send(channel, frames)
        assert (await _ask_on_a_new_stream(channel)).error
        assert await _kept(plane) == ([], [], {})


async def _send(channel: grpc.aio.Channel, frames: list[bytes]) -> None:
    stream = channel.stream_stream(CONNECT, request_serializer=bytes, response_deserializer=bytes)()
    # Bytes that are no frame at all end the stream that they came on, and nothing else.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for frame in frames:
            await stream.write(frame)
        await stream.done_writing()
        async for _ in stream:
            pass


async def _ask_on_a_new_stream(channel: grpc.aio.Channel) -> Reply:
    connect: grpc.aio.StreamStreamMultiCallable[Call, Reply] = channel.stream_stream(
        CONNECT, request_serializer=Call.SerializeToString, response_deserializer=Reply.FromString
    )
    stream = connect()
    await stream.write(Call(id=1, name="register", body=b"{}"))
    reply = await stream.read()
    assert isinstance(reply, Reply)
    return reply


async def _kept(plane: PlaneUnderTest) -> tuple[object, object, object]:
    counts = await plane.jobs.counts()
    return plane.fleet.nodes(), await plane.recorded(), {status: count for status, count in counts.items() if count}
