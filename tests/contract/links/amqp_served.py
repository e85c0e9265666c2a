"""The control side of the AMQP link at a real broker, with links to it."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import AbstractChannel

from muster.domain.event import Event
from muster.domain.node import Health, Node
from muster.ids import NodeId
from muster.links.amqp import topology
from muster.links.amqp.address import broker_address
from muster.links.amqp.agent_side import AmqpLink
from muster.links.amqp.control_side import AmqpIngest
from muster.ports import NodeLink
from muster.system import SystemClock
from tests.contract.links.planes import FACTS, NODE
from tests.waiting import eventually

RETRY_S = 0.05
KNOWN = Node(facts=FACTS, health=Health.HEALTHY, link="amqp", boot_id="boot-a", seq=3, heartbeat_interval_s=2.5)


class Nodes:
    """What the control plane knows."""

    def __init__(self, known: Sequence[Node] = ()) -> None:
        self.known = {node.node_id: node for node in known}

    def get(self, node_id: NodeId) -> Node | None:
        return self.known.get(node_id)

    def nodes(self) -> list[Node]:
        return list(self.known.values())


class AmqpServed:
    def __init__(self, url: str, plane: NodeLink, known: Sequence[Node] = ()) -> None:
        self.events: list[Event] = []
        self.ingest = AmqpIngest(
            broker_address(url), plane, Nodes(known), self._emit, SystemClock(), random.Random(7), backoff_s=RETRY_S
        )

    async def wait_until_connected(self) -> None:
        await eventually(lambda: self.ingest.connected, 30)

    def _emit(self, events: Iterable[Event]) -> None:
        self.events.extend(events)


@asynccontextmanager
async def amqp_served(url: str, plane: NodeLink, known: Sequence[Node] = ()) -> AsyncIterator[AmqpServed]:
    served = AmqpServed(url, plane, known)
    await served.ingest.start()
    await served.wait_until_connected()
    yield served
    await served.ingest.stop()


@asynccontextmanager
async def open_amqp_link(url: str, node_id: NodeId = NODE) -> AsyncIterator[AmqpLink]:
    opened = asyncio.Event()
    link = AmqpLink(
        broker_address(url), node_id, SystemClock(), random.Random(8), on_open=opened.set, backoff_s=RETRY_S
    )
    await link.start()
    await asyncio.wait_for(opened.wait(), 30)
    yield link
    await link.stop()


@asynccontextmanager
async def channel_at(url: str) -> AsyncIterator[AbstractChannel]:
    """Connect as neither an agent nor a control plane."""
    async with aiormq.connect(broker_address(url).url) as connection:
        yield await connection.channel()


async def empty(url: str) -> None:
    """Make the topology where there is none yet, and forget the messages of earlier tests."""
    async with channel_at(url) as channel:
        await topology.declare(channel)
        for queue in topology.QUEUES:
            await channel.queue_purge(queue.name)
