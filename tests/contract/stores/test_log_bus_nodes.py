"""The event log, the bus and the records of nodes."""

import asyncio
from typing import Any

import pytest

from muster.domain.event import Event
from muster.domain.node import Health, Node, NodeFacts, Resources
from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.system import SystemClock
from tests.contract.stores.world import Store
from tests.waiting import eventually


def happened(number: int) -> Event:
    return Event(kind="node_seen", key=f"n{number}", at_ms=number, data={"of": [1, "é"]}, ids=("a", "b"))


async def test_what_is_appended_is_read_in_order_after_any_id(store: Store) -> None:
    assert (await store.log.newest_id(), await store.log.oldest_id()) == ("0", "0")
    assert await store.log.read("0", 10) == []
    ids = await store.log.append([happened(number) for number in range(5)])
    assert len(set(ids)) == 5
    entries = await store.log.read("0", 10)
    assert [entry.id for entry in entries] == ids
    assert [entry.event for entry in entries] == [happened(number) for number in range(5)]
    assert [entry.id for entry in await store.log.read(ids[1], 2)] == ids[2:4]
    assert await store.log.read(ids[-1], 10) == []
    assert (await store.log.oldest_id(), await store.log.newest_id()) == (ids[0], ids[-1])
    assert await store.log.append([]) == []


async def test_the_log_is_read_from_a_time_on(store: Store) -> None:
    now_ms = SystemClock().now_ms()
    ids = await store.log.append([Event(kind="node_seen", key="n1", at_ms=now_ms)])
    assert [entry.id for entry in await store.log.read(await store.log.since(now_ms - 60_000), 10)] == ids
    assert await store.log.read(await store.log.since(now_ms + 60_000), 10) == []


async def test_a_reader_waits_for_the_next_event(store: Store) -> None:
    (first,) = await store.log.append([happened(1)])
    waiting = asyncio.create_task(store.log.read(first, 10, wait_s=30))
    _, other = await asyncio.gather(store.log.append([happened(2)]), store.log.read(first, 10, wait_s=30))
    assert [entry.event.key for entry in await waiting] == ["n2"]
    assert [entry.event.key for entry in other] == ["n2"]


async def test_a_reader_waits_only_so_long(store: Store) -> None:
    assert await store.log.read("0", 10, wait_s=0.01) == []


async def test_a_reader_that_gave_up_leaves_the_log_as_it_was(store: Store) -> None:
    for _ in range(3):
        waiting = asyncio.create_task(store.log.read("0", 10, wait_s=30))
        await asyncio.wait([waiting], timeout=0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    (entry_id,) = await store.log.append([happened(1)])
    assert [entry.id for entry in await store.log.read("0", 10, wait_s=30)] == [entry_id]


async def test_the_log_is_capped(store: Store) -> None:
    for _ in range(20):
        await store.log.append([happened(number) for number in range(50)])
    entries = await store.log.read("0", 10_000)
    assert 100 <= len(entries) <= 300  # trimmed by whole blocks of the stream
    assert entries[-1].id == await store.log.newest_id()
    assert entries[0].id == await store.log.oldest_id()
    assert len(await store.log.read("1", 10_000)) == len(entries)  # an id long gone: from the oldest kept


@pytest.mark.parametrize("after", ["", "x", "-1", "1-", "$", "1 2", "9" * 30])
async def test_an_id_that_cannot_be_is_refused(store: Store, after: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await store.log.read(after, 1)
    assert caught.value.field == "after"


async def test_the_bus_carries_a_topic_to_all_who_listen_to_it(store: Store) -> None:
    heard: dict[str, list[bytes]] = {"first": [], "second": [], "other": []}

    async def listen(name: str, topic: str) -> None:
        async for data in store.bus.subscribe(topic):
            heard[name].append(data)

    tasks = [asyncio.create_task(listen(*of)) for of in (("first", "t"), ("second", "t"), ("other", "o"))]

    async def all_listen() -> Any:
        await store.bus.publish("t", b"there?")
        await store.bus.publish("o", b"there?")
        return all(heard.values())

    await eventually(all_listen)
    await store.bus.publish("t", b"\x00\xff")
    await store.bus.publish("nobody", b"x")
    await eventually(lambda: b"\x00\xff" in heard["first"] and b"\x00\xff" in heard["second"])
    assert set(heard["other"]) == {b"there?"}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.bus.publish("t", b"after")


async def test_a_subscription_that_says_that_it_stands_misses_nothing(store: Store) -> None:
    heard: list[bytes] = []
    stands = asyncio.Event()

    async def listen() -> None:
        async for data in store.bus.subscribe("t", stands.set):
            heard.append(data)  # noqa: PERF401 - it is looked at while it grows

    task = asyncio.create_task(listen())
    await eventually(stands.is_set)
    await store.bus.publish("t", b"first")
    await eventually(lambda: heard == [b"first"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_records_of_nodes_are_kept_replaced_and_forgotten(store: Store) -> None:
    def node(name: str, cpu: float) -> Node:
        facts = NodeFacts(node_id=NodeId(name), labels={"zone": "é"})
        return Node(facts=facts, health=Health.HEALTHY, resources=Resources(cpu_percent=cpu))

    assert await store.nodes.load() == []
    await store.nodes.save([])
    await store.nodes.save([node("a", 1), node("b", 2)])
    await store.nodes.save([node("b", 3), node("c", 4)])
    await store.nodes.delete([NodeId("a"), NodeId("none")])
    await store.nodes.delete([])
    kept = sorted(await store.nodes.load(), key=lambda found: found.node_id)
    assert kept == [node("b", 3), node("c", 4)]
