"""RabbitMQ's management API and how it may fail; the real one is looked at by the tests of the monitor."""

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from muster.domain.standing import BrokerManagement, ManagedQueue
from muster.errors import SetupError
from muster.links.amqp.address import broker_address
from muster.links.amqp.management import Management, management_url
from tests.clocks import ManualClock

BROKER = broker_address("amqp://fleet:se%2Fcret@127.0.0.1")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def asked(handler: Handler, clock: ManualClock, vhost: str = "agents") -> AsyncIterator[Management]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        management = Management(management_url(BROKER, str(server.make_url("/"))), vhost, clock)
        await management.start()
        try:
            yield management
        finally:
            await management.stop()


async def answer_to(handler: Handler) -> BrokerManagement:
    async with asked(handler, ManualClock()) as management:
        return await management.look()


def saying(text: str, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return handler


async def test_queues_are_told_with_their_rates_and_a_new_one_without() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        rates = {name: {"rate": rate} for name, rate in (("publish_details", 2.5), ("ack_details", 1.0))}
        full = {"name": "a", "messages_ready": 3, "messages_unacknowledged": 1, "consumers": 2, "message_stats": rates}
        return web.json_response({"items": [full, {"name": "new"}], "total_count": 7})

    async with asked(handler, ManualClock(), vhost="a/b") as management:
        found = await management.look()
    assert found.error is None
    assert found.queue_count == 7
    assert found.queues == (
        ManagedQueue(
            name="a", ready=3, unacked=1, consumers=2, published_per_s=2.5, delivered_per_s=None, acked_per_s=1.0
        ),
        ManagedQueue(
            name="new",
            ready=None,
            unacked=None,
            consumers=None,
            published_per_s=None,
            delivered_per_s=None,
            acked_per_s=None,
        ),
    )
    (request,) = seen
    assert request.raw_path.split("?")[0] == "/api/queues/a%2Fb"
    assert request.headers["Authorization"] == f"Basic {b64encode(b'fleet:se/cret').decode()}"


@pytest.mark.parametrize(
    ("handler", "error", "next_step"),
    [
        (saying("no", 401), "it does not let fleet look (401)", "rabbitmqctl set_user_tags fleet monitoring"),
        (saying("no", 404), "it answered 404 about the vhost agents", "rabbitmq-plugins enable rabbitmq_management"),
        (saying("<html>"), "what answers there does not speak as RabbitMQ does", "MUSTER_RABBITMQ_MANAGEMENT_URL"),
        (saying("[]"), "what answers there does not speak as RabbitMQ does", "MUSTER_RABBITMQ_MANAGEMENT_URL"),
        (saying(" " * 2_000_000), "its answer is larger than that of a RabbitMQ", "MUSTER_RABBITMQ_MANAGEMENT_URL"),
    ],
)
async def test_what_is_wrong_is_told_with_what_helps(handler: Handler, error: str, next_step: str) -> None:
    found = await answer_to(handler)
    assert found.error == error
    assert found.next_step is not None
    assert next_step in found.next_step
    assert "cret" not in found.address


async def test_one_that_does_not_answer_is_asked_again_only_after_a_while() -> None:
    clock = ManualClock()
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=500) if len(calls) == 1 else web.json_response({"items": [], "total_count": 0})

    async with asked(handler, clock) as management:
        assert (await management.look()).error
        assert (await management.look()).error
        assert len(calls) == 1
        clock.advance(31)
        assert (await management.look()).error is None
        assert (await management.look()).error is None
        assert len(calls) == 3


async def test_where_nothing_listens_it_is_said() -> None:
    management = Management(URL("http://a:b@127.0.0.1:1"), "agents", ManualClock())
    await management.start()
    found = await management.look()
    await management.stop()
    assert (found.error or "").startswith("it does not answer: ")
    assert (await management.look()) is found


async def test_after_its_end_it_asks_nobody() -> None:
    assert (await Management(URL("http://a:b@127.0.0.1:1"), "agents", ManualClock()).look()).error


@pytest.mark.parametrize(
    ("broker", "named", "url"),
    [
        ("amqp://u:p@b", "", "http://u:p@b:15672"),
        ("amqps://u:p@b:5000/v", "", "https://u:p@b:15671"),
        ("amqp://b", "", "http://guest:guest@b:15672"),
        ("amqp://u:p@b", "https://m/rabbit", "https://u:p@m/rabbit"),
        ("amqp://u:p@b", "http://x:y@m:80", "http://x:y@m:80"),
    ],
)
def test_without_an_address_it_is_the_usual_port_with_the_same_login(broker: str, named: str, url: str) -> None:
    assert management_url(broker_address(broker), named) == URL(url)


def test_an_address_that_is_none_is_refused_with_its_name() -> None:
    with pytest.raises(SetupError, match="rabbitmq_management_url"):
        management_url(BROKER, "http://[b")
