"""What only a broker can do to a link, and what a link without replies does about it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiormq.abc import AbstractChannel

from muster.domain.command import Command
from muster.domain.node import Health
from muster.errors import Forbidden, QueueFull, StoreUnavailable, UpstreamFailed
from muster.ids import CommandId
from muster.links.amqp import topology
from muster.links.amqp.agent_side import AmqpLink
from muster.links.amqp.messages import heartbeat_body, registration_body
from muster.wire import (
    CommandBatch,
    CommandPoll,
    Heartbeat,
    HeartbeatReply,
    Join,
    Registration,
    RegistrationReply,
    encode,
)
from tests.contract.links.amqp_served import KNOWN, AmqpServed, amqp_served, channel_at, open_amqp_link
from tests.contract.links.planes import EXCHANGES, NODE, NotingPlane
from tests.rabbitmq import RabbitMq
from tests.waiting import eventually

REGISTRATION: Registration = EXCHANGES[0][1]
HEARTBEAT: Heartbeat = EXCHANGES[1][1]
NOT_CORRECTED = HeartbeatReply(next_heartbeat_ms=2500, draining=True)
BATCH = CommandBatch(commands=(Command(command_id=CommandId("cmd-1"), node_id=NODE, command="drain"),), now_ms=7)


class PlaneOfNodes(NotingPlane):
    """Answers each call as a control plane does that has nothing to correct; `batch` is for whoever polls."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = CommandBatch()
        self.polls = 0
        self.correction = NOT_CORRECTED

    async def register(self, message: Registration) -> RegistrationReply:
        await self._take(message)
        return RegistrationReply(node_id=NODE, next_heartbeat_ms=2500)

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        await self._take(message)
        return self.correction

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        self.polls += 1
        return self.batch


@pytest.fixture
def plane() -> PlaneOfNodes:
    return PlaneOfNodes()


@pytest.fixture
async def served(broker_url: str, plane: PlaneOfNodes) -> AsyncIterator[AmqpServed]:
    async with amqp_served(broker_url, plane, [KNOWN]) as served:
        yield served


@pytest.fixture
async def link(broker_url: str, served: AmqpServed) -> AsyncIterator[AmqpLink]:
    async with open_amqp_link(broker_url) as link:
        yield link


@pytest.fixture
async def channel(broker_url: str, served: AmqpServed) -> AsyncIterator[AbstractChannel]:
    async with channel_at(broker_url) as channel:
        yield channel


async def dead_letters(channel: AbstractChannel) -> list[tuple[bytes, dict[str, Any]]]:
    letters = []
    while (got := await channel.basic_get(topology.DEAD_LETTERS_QUEUE, no_ack=True)).delivery_tag:
        letters.append((got.body, dict(got.header.properties.headers or {})))
    return letters


# --- corrections -----------------------------------------------------------------------------------------------------


async def test_nothing_is_written_to_a_node_that_needs_no_correction(link: AmqpLink, plane: PlaneOfNodes) -> None:
    reply = await link.heartbeat(HEARTBEAT)
    await eventually(lambda: plane.heard == [HEARTBEAT])
    assert reply == HeartbeatReply(next_heartbeat_ms=2500)


async def test_a_node_whose_record_was_made_anew_hears_of_it_until_it_registers(
    link: AmqpLink, plane: PlaneOfNodes
) -> None:
    plane.correction = msgspec.structs.replace(NOT_CORRECTED, known=False)
    seq = iter(range(8, 10_000))

    async def told() -> bool:
        return not (await link.heartbeat(msgspec.structs.replace(HEARTBEAT, seq=next(seq)))).known

    await eventually(told)
    plane.correction = NOT_CORRECTED
    await link.register(REGISTRATION)
    assert (await link.heartbeat(msgspec.structs.replace(HEARTBEAT, seq=next(seq)))).known


async def test_a_node_hears_that_it_drains_and_that_it_does_no_more(link: AmqpLink, plane: PlaneOfNodes) -> None:
    for draining in (True, False):
        plane.correction = msgspec.structs.replace(NOT_CORRECTED, draining=draining)

        async def told(*, draining: bool = draining) -> bool:
            heartbeat = msgspec.structs.replace(HEARTBEAT, draining=not draining)
            return (await link.heartbeat(heartbeat)).draining is draining

        await eventually(told)


async def test_of_two_agents_with_one_node_id_only_the_one_that_is_meant_is_held(
    broker_url: str, link: AmqpLink, plane: PlaneOfNodes
) -> None:
    rival = msgspec.structs.replace(HEARTBEAT, boot_id="boot-b")
    plane.correction = msgspec.structs.replace(NOT_CORRECTED, superseded=True)
    async with open_amqp_link(broker_url) as other:
        await link.register(REGISTRATION)

        async def held() -> bool:
            return (await other.heartbeat(rival)).superseded

        await eventually(held)
        plane.correction = NOT_CORRECTED
        assert not (await link.heartbeat(HEARTBEAT)).superseded


# --- commands --------------------------------------------------------------------------------------------------------


async def test_a_command_reaches_the_node_as_soon_as_it_is_issued(
    link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    await link.heartbeat(HEARTBEAT)
    polling = asyncio.create_task(link.next_commands(CommandPoll(node_id=NODE, boot_id="boot-a", wait_s=20)))
    plane.batch = BATCH
    served.ingest.command_issued(BATCH.commands[0])
    assert await asyncio.wait_for(polling, 10) == BATCH


async def test_a_command_comes_again_until_the_control_plane_has_none_to_send(
    link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    plane.batch = BATCH
    await link.register(REGISTRATION)
    poll = CommandPoll(node_id=NODE, boot_id="boot-a", wait_s=20)
    for _ in range(2):  # the second by itself
        assert await link.next_commands(poll) == BATCH


async def test_a_command_for_another_life_of_the_node_is_not_heeded(
    link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    plane.batch = BATCH
    await link.register(msgspec.structs.replace(REGISTRATION, boot_id="boot-new"))
    await eventually(lambda: plane.polls)
    assert await link.next_commands(CommandPoll(node_id=NODE, boot_id="boot-new", wait_s=0.2)) == CommandBatch()


async def test_a_node_that_left_the_broker_for_another_link_is_sent_nothing(
    broker_url: str, plane: PlaneOfNodes
) -> None:
    plane.batch = BATCH
    async with amqp_served(broker_url, plane, [msgspec.structs.replace(KNOWN, link="http")]) as served:
        served.ingest.command_issued(BATCH.commands[0])
        async with open_amqp_link(broker_url) as link:
            await link.register(REGISTRATION)
            await eventually(lambda: plane.heard)
    assert plane.polls == 0


async def test_no_token_travels_through_the_broker(link: AmqpLink) -> None:
    with pytest.raises(Forbidden, match="at the control plane itself"):
        await link.join(Join(node_id=NODE, secret_sha256="0" * 64))


# --- what others send ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "key", "queue"),
    [
        (topology.REGISTRATION, "register", topology.REGISTRATION_QUEUE),
        (topology.REGISTRATION, "deregister", topology.REGISTRATION_QUEUE),
        (topology.HEARTBEAT, "", topology.HEARTBEAT_QUEUE),
        (topology.EVENTS, "events", topology.EVENTS_QUEUE),
        (topology.EVENTS, "reports", topology.EVENTS_QUEUE),
    ],
)
async def test_what_cannot_be_read_is_put_aside_with_the_reason_and_the_next_is_taken(
    channel: AbstractChannel,
    plane: PlaneOfNodes,
    served: AmqpServed,
    exchange: str,
    key: str,
    queue: str,
) -> None:
    bodies = [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"node_id": 3}', b'{"node_id": ""}', b'{"node_id": "unknown"}']
    for body in bodies[4:]:
        await channel.basic_publish(body, exchange=exchange, routing_key=key)
    await channel.basic_publish(heartbeat_body(HEARTBEAT, 5), exchange=topology.HEARTBEAT)
    for body in bodies[:4]:
        await channel.basic_publish(body, exchange=exchange, routing_key=key)

    def counted() -> int:
        return next(figures.refused for figures in served.ingest.figures() if figures.queue == queue)

    await eventually(lambda: counted() == len(bodies))
    kept = await dead_letters(channel)
    assert sorted(body for body, _ in kept) == sorted(bodies)
    assert all(headers["reason"] and headers["queue"] == queue for _, headers in kept)
    await eventually(lambda: HEARTBEAT in plane.heard)
    assert served.events[0].kind == "message_refused"


async def test_the_documented_fields_alone_make_a_node(channel: AbstractChannel, plane: PlaneOfNodes) -> None:
    registration = {
        "action": "register",
        "node_id": "foreign",
        "node_type": "gpu-worker",
        "nebula_ip": "10.0.0.9",
        "public_ip": None,
        "region": "eu",
        "az": "eu-1a",
        "capabilities": {"gpus": [{"name": "L4", "memory_total_mb": 24_000}]},
        "timestamp": "2026-01-01T00:00:00Z",
    }
    heartbeat = {
        "node_id": "foreign",
        "status": "healthy",
        "services": {"ollama": "running"},
        "resources": {"memory_total_mb": 64_000, "cpu_percent": 3.0, "gpus": [], "models_loaded": ["llama3"]},
        "workers": [{}],
        "timestamp": 1,
    }
    await channel.basic_publish(encode(registration), exchange=topology.REGISTRATION, routing_key="register")
    await channel.basic_publish(encode(heartbeat), exchange=topology.HEARTBEAT)
    await eventually(lambda: len(plane.heard) == 2)
    registered = next(message for message in plane.heard if isinstance(message, Registration))
    heard = next(message for message in plane.heard if isinstance(message, Heartbeat))
    assert (registered.facts.nebula_ip, registered.facts.az, registered.gpus[0].name) == ("10.0.0.9", "eu-1a", "L4")
    assert registered.boot_id
    assert (heard.facts.node_id, heard.status, heard.workers[0].worker_id) == (
        "foreign",
        Health.HEALTHY,
        "foreign-worker-0",
    )
    assert {model.name for service in heard.services for model in service.models} == {"llama3"}


async def test_a_heartbeat_of_few_words_keeps_what_the_registration_said(
    channel: AbstractChannel, plane: PlaneOfNodes
) -> None:
    await channel.basic_publish(encode({"node_id": NODE}), exchange=topology.HEARTBEAT)
    await eventually(lambda: plane.heard)
    (heard,) = plane.heard
    assert (heard.facts, heard.boot_id, heard.seq) == (KNOWN.facts, KNOWN.boot_id, KNOWN.seq + 1)


# --- when something is away ------------------------------------------------------------------------------------------


async def test_a_registration_is_not_lost_while_the_store_is_away(
    link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    plane.error = StoreUnavailable("the store does not answer")
    await link.register(REGISTRATION)
    await eventually(lambda: len(plane.heard) >= 2)
    plane.error = None
    await link.register(msgspec.structs.replace(REGISTRATION, boot_id="boot-next"))
    await eventually(lambda: plane.heard[-1].boot_id == "boot-next")
    tries = plane.heard[:-1]
    assert len(tries) < 10  # it is tried again now and then, not as fast as can be
    assert set(map(str, tries)) == {str(REGISTRATION)}
    assert all(figures.refused == 0 for figures in served.ingest.figures())


@pytest.mark.parametrize(
    "error", [QueueFull("10 nodes are known", field="nodes_max"), RuntimeError("a fault of ours")], ids=repr
)
async def test_a_message_that_is_not_taken_does_not_keep_the_others_from_being_heard(
    link: AmqpLink, plane: PlaneOfNodes, error: Exception
) -> None:
    plane.error = error
    await link.register(REGISTRATION)
    await eventually(lambda: plane.heard)
    plane.error = None
    await link.register(msgspec.structs.replace(REGISTRATION, boot_id="boot-next"))
    await eventually(lambda: plane.heard[-1].boot_id == "boot-next")


async def test_while_the_broker_is_away_the_newest_heartbeat_waits_and_goes_first(
    broker: RabbitMq, link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    await asyncio.to_thread(broker.control, "stop_app")
    try:
        await eventually(lambda: not served.ingest.connected)

        async def refused() -> bool:
            try:
                await link.register(REGISTRATION)
            except UpstreamFailed:
                return True
            return False

        await eventually(refused)
        plane.heard.clear()
        for seq in (20, 21, 22):
            reply = await link.heartbeat(msgspec.structs.replace(HEARTBEAT, seq=seq))
            assert reply.next_heartbeat_ms == 2500
    finally:
        await asyncio.to_thread(broker.control, "start_app")
    await served.wait_until_connected()
    await eventually(lambda: plane.heard, 30)
    assert [message.seq for message in plane.heard] == [22]


async def test_a_queue_that_was_deleted_is_made_anew(
    channel: AbstractChannel, link: AmqpLink, plane: PlaneOfNodes, served: AmqpServed
) -> None:
    await channel.queue_delete(topology.HEARTBEAT_QUEUE)
    await eventually(lambda: not served.ingest.connected)
    await served.wait_until_connected()
    await link.heartbeat(HEARTBEAT)
    await eventually(lambda: HEARTBEAT in plane.heard)


async def test_a_registration_that_no_queue_takes_is_a_failure_and_not_a_success(
    channel: AbstractChannel, link: AmqpLink
) -> None:
    await channel.queue_unbind(topology.REGISTRATION_QUEUE, topology.REGISTRATION, "register")
    with pytest.raises(UpstreamFailed, match=r"no queue .* agents\.registration"):
        await link.register(REGISTRATION)


async def test_messages_name_one_node_only(channel: AbstractChannel, plane: PlaneOfNodes, served: AmqpServed) -> None:
    body = msgspec.json.decode(registration_body(REGISTRATION, 5)) | {"node_id": "another"}
    await channel.basic_publish(encode(body), exchange=topology.REGISTRATION, routing_key="register")
    await eventually(lambda: served.events)
    assert plane.heard == []
    assert "another" in served.events[0].data["reason"]
