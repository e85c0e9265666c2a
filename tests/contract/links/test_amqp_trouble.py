"""A broker that will not have us: every attempt says why, and what a person can do."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiormq.abc import AbstractChannel
from structlog.testing import capture_logs

from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.links.amqp import topology
from muster.links.amqp.address import broker_address
from muster.links.amqp.connection import BrokerConnection
from tests.contract.links.amqp_served import RETRY_S, channel_at
from tests.rabbitmq import PASSWORD, USER, RabbitMq
from tests.relay import Relay
from tests.waiting import eventually

Logs = Sequence[MutableMapping[str, Any]]


async def nothing_more(_: object) -> list[AbstractChannel]:
    return []


def connection_to(url: str, *, publish_timeout_s: float = 5.0) -> BrokerConnection:
    return BrokerConnection(
        broker_address(url), nothing_more, random.Random(1), base_s=RETRY_S, publish_timeout_s=publish_timeout_s
    )


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture
async def connection(broker_url: str) -> AsyncIterator[BrokerConnection]:
    connection = connection_to(broker_url, publish_timeout_s=0.5)
    await connection.start()
    await asyncio.wait_for(connection.up.wait(), 30)
    yield connection
    await connection.stop()


async def refusals(url: str, logs: Logs) -> Logs:
    """Return what the first attempts at this broker say."""
    connection = connection_to(url)
    await connection.start()
    await eventually(lambda: len(told(logs)) >= 2, 30)
    await connection.stop()
    return told(logs)


def told(logs: Logs) -> Logs:
    return [line for line in logs if line["event"] == "broker_away"]


@pytest.mark.parametrize(
    ("user", "password", "vhost", "problem", "next_step"),
    [
        (USER, "not-the-secret", "agents", f"refuses the login of '{USER}'", "RABBITMQ_URL"),
        ("stranger", PASSWORD, "agents", "refuses the login of 'stranger'", "RABBITMQ_URL"),
        (USER, PASSWORD, "nowhere", "has no vhost 'nowhere'", "rabbitmqctl add_vhost nowhere"),
    ],
)
async def test_a_login_that_is_refused_is_told_each_time_without_the_password(
    broker: RabbitMq, logs: Logs, user: str, password: str, vhost: str, problem: str, next_step: str
) -> None:
    first, second, *_ = await refusals(f"amqp://{user}:{password}@127.0.0.1:{broker.port}/{vhost}", logs)
    assert problem in first["error"]
    assert next_step in first["next_step"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert password not in str(logs)


async def test_a_user_without_rights_is_told_which_command_gives_them(broker: RabbitMq, logs: Logs) -> None:
    for command in ("add_user guest2 secret2", "set_permissions -p agents guest2 ^$ .* .*"):
        await asyncio.to_thread(broker.control, *command.split())
    async with channel_at(broker.url) as channel:  # else a declaration would say nothing about rights
        await channel.exchange_delete(topology.EVENTS)
    first, *_ = await refusals(f"amqp://guest2:secret2@127.0.0.1:{broker.port}", logs)
    assert "not declare or use what a fleet needs" in first["error"]
    assert "set_permissions -p agents guest2" in first["next_step"]


async def test_a_queue_that_was_declared_otherwise_is_named(broker: RabbitMq, logs: Logs) -> None:
    for command in ("add_vhost other", f"set_permissions -p other {USER} .* .* .*"):
        await asyncio.to_thread(broker.control, *command.split())
    url = f"{broker.url}/other"
    async with channel_at(url) as channel:
        await channel.queue_declare(topology.HEARTBEAT_QUEUE, durable=True)
    first, *_ = await refusals(url, logs)
    assert topology.HEARTBEAT_QUEUE in first["error"]
    assert "delete it" in first["next_step"]
    async with channel_at(url) as channel:
        await channel.queue_delete(topology.HEARTBEAT_QUEUE)
    connection = connection_to(url)
    await connection.start()
    await asyncio.wait_for(connection.up.wait(), 30)
    await connection.stop()


async def test_a_message_that_a_full_queue_refuses_is_a_failure(broker_url: str, connection: BrokerConnection) -> None:
    full: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with channel_at(broker_url) as channel:
        await channel.queue_declare("full", exclusive=True, arguments=full)
        await channel.queue_bind("full", topology.COMMANDS, "node.full")
        assert await connection.publish(b"{}", topology.COMMANDS, "node.full")
        with pytest.raises(UpstreamFailed, match="is full"):
            await connection.publish(b"{}", topology.COMMANDS, "node.full")


async def test_a_message_without_a_queue_is_told_from_one_that_was_taken(connection: BrokerConnection) -> None:
    assert await connection.publish(b"{}", topology.HEARTBEAT, "")
    assert not await connection.publish(b"{}", topology.COMMANDS, "node.nobody")


async def test_a_broker_that_stands_still_is_given_up_and_taken_again_when_it_goes_on(
    broker: RabbitMq, connection: BrokerConnection
) -> None:
    broker.freeze()
    try:
        with pytest.raises(UpstreamTimeout, match=r"did not confirm a message within 0\.5 s"):
            await connection.publish(b"{}", topology.HEARTBEAT, "")
        with pytest.raises(UpstreamFailed, match="did not confirm"):
            await connection.publish(b"{}", topology.HEARTBEAT, "")
    finally:
        broker.thaw()
    await asyncio.wait_for(connection.up.wait(), 60)
    assert await connection.publish(b"{}", topology.HEARTBEAT, "")


async def test_lesson_a_connection_that_is_lost_again_and_again_is_taken_up_each_time(broker_url: str) -> None:
    port = urlsplit(broker_url).port
    assert port is not None
    async with Relay(port) as relay:
        connection = connection_to(broker_url.replace(f":{port}", f":{relay.port}"))
        await connection.start()
        for _ in range(3):
            await asyncio.wait_for(connection.up.wait(), 30)
            assert await connection.publish(b"{}", topology.HEARTBEAT, "")
            relay.cut()
            await eventually(lambda: not connection.up.is_set())
        await connection.stop()


async def test_messages_on_the_way_when_the_connection_ends_are_failures_and_no_cancellation(
    broker: RabbitMq, broker_url: str
) -> None:
    connection = connection_to(broker_url, publish_timeout_s=60.0)
    await connection.start()
    await asyncio.wait_for(connection.up.wait(), 30)

    async def publish_on() -> None:
        while True:
            await connection.publish(b"{}", topology.HEARTBEAT, "")

    publishing = [asyncio.create_task(publish_on()) for _ in range(10)]
    await asyncio.to_thread(broker.control, "close_all_connections", "--global", "test")
    outcomes = await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), 30)
    assert {type(outcome) for outcome in outcomes} == {UpstreamFailed}
    await asyncio.wait_for(connection.up.wait(), 30)
    await connection.stop()
