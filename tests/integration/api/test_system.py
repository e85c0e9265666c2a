"""What the fleet stands on, over the real port."""

import asyncio
from typing import Any

import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.domain.node import NodeFacts
from muster.domain.standing import BrokerStanding, StoreStanding
from muster.errors import StoreUnavailable
from muster.ids import NodeId
from tests.integration.api.conftest import Served, serving
from tests.waiting import eventually


async def told(served: Served) -> Any:
    async with served.client.get("/api/v1/system") as answer:
        assert answer.status == 200
        return await answer.json()


class Broker:
    def __init__(self) -> None:
        self.asked = 0

    async def standing(self) -> BrokerStanding:
        self.asked += 1
        return BrokerStanding(
            address="amqp://muster:***@b:5672/agents",
            connected=False,
            since_ms=7,
            reconnects=2,
            error="gone",
            next_step="start it",
        )


async def test_store_links_and_control_planes_are_told(served: Served) -> None:
    await served.plane.heartbeat("n1", facts=NodeFacts(node_id=NodeId("n1"), version="0.1.0"))
    await served.plane.heartbeat("n2")
    await served.plane.store.leases.take("leader", "plane-1", 3.0)
    body = await told(served)
    assert body["store"]["standing"]["product"] == "memory"
    assert (body["store"]["embedded"], body["store"]["error"], body["store"]["next_step"]) == (True, None, None)
    assert body["broker"] is None
    assert body["links"] == [{"name": "http", "nodes": 2, "connected": 2}]
    assert body["node_versions"] == {"0.1.0": 1, "unknown": 1}
    (plane,) = body["control_planes"]
    assert (plane["plane_id"], plane["here"], plane["leads"]) == ("plane-1", True, True)
    assert body["suspects_itself"] is False


async def test_a_store_that_is_away_is_told_with_what_to_do_and_the_rest_is_still_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> StoreStanding:
        raise StoreUnavailable("the store at memory did not answer")

    monkeypatch.setattr(served.plane.store.probe, "standing", away)
    monkeypatch.setattr(served.plane.store.leases, "holder", away)
    served.plane.broker = Broker()
    body = await told(served)
    assert body["store"]["standing"] is None
    assert body["store"]["error"] == "the store at memory did not answer"
    assert "its log is" in body["store"]["next_step"]
    assert [plane["leads"] for plane in body["control_planes"]] == [None]
    assert (body["broker"]["error"], body["broker"]["next_step"]) == ("gone", "start it")


async def test_many_who_look_at_once_ask_the_broker_once(served: Served) -> None:
    served.plane.broker = broker = Broker()
    await asyncio.gather(*(told(served) for _ in range(5)))
    assert broker.asked == 1

    async def asked_again() -> bool:
        await told(served)
        return broker.asked == 2

    await eventually(asked_again)


@pytest.mark.parametrize(("role", "status"), [(Role.OPERATOR, 200), (Role.VIEWER, 403)])
async def test_it_is_for_those_who_act(role: Role, status: int) -> None:
    async with serving(token="admin-secret") as served:
        _, text = await served.plane.access.create(Wanted(name="somebody", role=role))
        async with served.client.get("/api/v1/system", headers={"Authorization": f"Bearer {text}"}) as answer:
            assert answer.status == status
