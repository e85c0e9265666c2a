"""What holds for every link."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.errors import InvalidInput, MusterError, QueueFull, StoreUnavailable, Unauthorized
from muster.links.calls import CallingLink
from muster.links.http.agent_side import HttpLink
from muster.links.memory import MemoryLink
from muster.ports import NodeLink
from muster.wire import ClaimReply, ClaimRequest
from tests.contract.links.amqp_served import amqp_served, empty, open_amqp_link
from tests.contract.links.grpc_served import grpc_served, open_grpc_link
from tests.contract.links.planes import EXCHANGES, SESSION, WORKER, NotingPlane
from tests.contract.links.served import Served
from tests.waiting import eventually

SENT_BY_NODES = {"register", "heartbeat", "report_events", "deregister", "report_commands"}


@asynccontextmanager
async def memory_link(plane: NotingPlane) -> AsyncIterator[CallingLink]:
    yield MemoryLink(plane, plane)


@asynccontextmanager
async def http_link(plane: NotingPlane) -> AsyncIterator[CallingLink]:
    served = Served(plane, plane, token="secret")
    await served.start()
    async with aiohttp.ClientSession() as session:
        yield HttpLink(served.url, session, token="secret")
    await served.stop()


@asynccontextmanager
async def grpc_link(plane: NotingPlane) -> AsyncIterator[CallingLink]:
    async with grpc_served(plane, plane, token="secret") as served, open_grpc_link(served.url, "secret") as link:
        yield link


@asynccontextmanager
async def amqp_link(plane: NotingPlane, url: str) -> AsyncIterator[NodeLink]:
    await empty(url)
    async with amqp_served(url, plane), open_amqp_link(url) as link:
        yield link


@pytest.fixture
def plane() -> NotingPlane:
    return NotingPlane()


@pytest.fixture(params=[memory_link, http_link, grpc_link])
async def link(request: pytest.FixtureRequest, plane: NotingPlane) -> AsyncIterator[CallingLink]:
    async with request.param(plane) as link:
        yield link


@pytest.fixture(params=[memory_link, http_link, grpc_link, amqp_link])
async def node_link(request: pytest.FixtureRequest, plane: NotingPlane) -> AsyncIterator[NodeLink]:
    """Every link, also the one over a broker, which brings messages and no replies."""
    over_broker = request.param is amqp_link
    async with request.param(plane, *([request.getfixturevalue("broker").url] if over_broker else [])) as link:
        yield link


@pytest.mark.parametrize(("method", "message", "reply"), EXCHANGES, ids=[name for name, *_ in EXCHANGES])
async def test_a_message_arrives_as_it_was_sent_and_so_does_the_reply(
    link: CallingLink, plane: NotingPlane, method: str, message: Any, reply: Any
) -> None:
    plane.reply = reply
    assert await getattr(link, method)(message) == reply
    assert plane.heard == [message]


@pytest.mark.parametrize(
    ("method", "message", "reply"),
    [exchange for exchange in EXCHANGES if exchange[0] in SENT_BY_NODES],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_what_a_node_sends_arrives_as_it_was_sent(
    node_link: NodeLink, plane: NotingPlane, method: str, message: Any, reply: Any
) -> None:
    plane.reply = reply
    await getattr(node_link, method)(message)
    await eventually(lambda: plane.heard == [message])


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("seq must not be negative, got -1", field="seq"),
        StoreUnavailable("the store does not answer"),
        QueueFull("10 nodes are known", field="nodes_max", retry_after_s=30.0),
        Unauthorized("this token is not known"),
    ],
    ids=lambda error: error.code,
)
async def test_an_error_arrives_as_what_it_is(link: CallingLink, plane: NotingPlane, error: MusterError) -> None:
    plane.error = error
    method, message, _ = EXCHANGES[1]
    with pytest.raises(MusterError) as caught:
        await getattr(link, method)(message)
    assert type(caught.value) is type(error)
    assert caught.value.to_dict() == error.to_dict()


async def test_calls_do_not_wait_for_each_other(link: CallingLink, plane: NotingPlane) -> None:
    let_go = asyncio.Event()
    plane.hold, plane.reply = let_go.wait, ClaimReply()
    parked = asyncio.create_task(link.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=20)))
    await eventually(lambda: plane.heard)
    plane.hold = None
    await link.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=0))
    assert not parked.done()
    let_go.set()
    assert await parked == ClaimReply()


async def test_a_call_given_up_is_given_up_on_the_other_side_too(link: CallingLink, plane: NotingPlane) -> None:
    gave_up = asyncio.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gave_up.set()

    plane.hold = wait_for_ever
    parked = asyncio.create_task(link.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=20)))
    await eventually(lambda: plane.heard)
    parked.cancel()
    await asyncio.wait_for(gave_up.wait(), 10)
