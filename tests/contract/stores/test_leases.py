"""What only one of several control planes may do, and whose records of nodes come first."""

import asyncio

from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from tests.clocks import ManualClock
from tests.contract.stores.world import Store


async def test_one_of_those_who_ask_gets_the_lease(store: Store) -> None:
    owners = ["plane-a", "plane-b", "plane-c"]
    got = await asyncio.gather(*(store.leases.take("sweep", owner, 3.0) for owner in owners))
    assert sum(got) == 1
    again = await asyncio.gather(*(store.leases.take("sweep", owner, 3.0) for owner in owners))
    assert again == got


async def test_a_lease_holds_until_it_ends_and_a_renewal_counts_from_now(store: Store, clock: ManualClock) -> None:
    assert await store.leases.take("sweep", "a", 3.0)
    clock.advance(2.0)
    assert await store.leases.take("sweep", "a", 3.0)
    clock.advance(2.999)
    assert not await store.leases.take("sweep", "b", 3.0)
    clock.advance(0.001)
    assert await store.leases.take("sweep", "b", 3.0)
    assert not await store.leases.take("sweep", "a", 3.0)


async def test_a_lease_given_back_is_free_at_once(store: Store) -> None:
    assert await store.leases.take("sweep", "a", 60.0)
    await store.leases.release("sweep", "a")
    assert await store.leases.take("sweep", "b", 60.0)


async def test_who_does_not_have_a_lease_cannot_give_it_back(store: Store) -> None:
    await store.leases.release("sweep", "b")
    assert await store.leases.take("sweep", "a", 60.0)
    await store.leases.release("sweep", "b")
    assert not await store.leases.take("sweep", "b", 60.0)


async def test_leases_of_other_names_are_others(store: Store) -> None:
    assert await store.leases.take("sweep", "a", 60.0)
    assert await store.leases.take("clouds", "b|c", 60.0)
    assert not await store.leases.take("clouds", "b", 60.0)


async def test_a_new_node_is_the_news_of_one_control_plane(store: Store) -> None:
    first, second = (
        Node(facts=NodeFacts(node_id=NodeId("n")), health=Health.HEALTHY, last_seen_ms=at_ms) for at_ms in (1, 2)
    )
    assert await store.nodes.create(first)
    assert await store.nodes.create(first)  # as after a reply that was lost
    assert not await store.nodes.create(second)
    assert await store.nodes.load() == [first]
    await store.nodes.delete([NodeId("n")])
    assert await store.nodes.create(second)
