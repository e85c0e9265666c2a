"""What is told of the broker: how it stands, its queues, and what is wrong while it is away."""

from tests.contract.links.amqp_served import AmqpServed, amqp_served
from tests.contract.links.planes import NotingPlane
from tests.rabbitmq import PASSWORD, RabbitMq
from tests.relay import Relay
from tests.waiting import eventually


async def test_a_broker_that_is_reached_tells_of_its_queues(broker_url: str) -> None:
    async with amqp_served(broker_url, NotingPlane()) as served:
        found = await served.ingest.standing()
    assert (found.connected, found.error, found.next_step, found.reconnects) == (True, None, None, 0)
    assert PASSWORD not in found.address
    assert found.product is not None
    assert found.product.startswith("RabbitMQ 3.")
    by_name = {queue.name: queue for queue in found.queues}
    assert by_name["heartbeat.control-plane"].consumers == 1
    assert by_name["dead-letters.control-plane"].consumers == 0
    assert {queue.ready for queue in found.queues} == {0}


async def test_a_broker_that_goes_away_is_told_with_what_to_do_and_comes_back_by_itself(
    broker: RabbitMq, broker_url: str
) -> None:
    assert broker_url
    async with Relay(broker.port) as relay, amqp_served(_through(relay, broker), NotingPlane()) as served:
        reached = await served.ingest.standing()
        relay.swallow()
        silent = await served.ingest.standing()
        assert "did not answer within 2 s" in (silent.error or "")
        assert silent.next_step
        relay.cut()
        await eventually(lambda: served.ingest.reconnects == 1, 30)
        again = await served.ingest.standing()
    assert (again.connected, again.error) == (True, None)
    assert again.since_ms > reached.since_ms
    assert {queue.ready for queue in again.queues} == {0}


async def test_a_broker_that_was_never_reached_is_told_as_such() -> None:
    found = await AmqpServed("amqp://muster:secret@127.0.0.1:1", NotingPlane()).ingest.standing()
    assert (found.connected, found.product) == (False, None)
    assert found.error
    assert "RABBITMQ_URL" in (found.next_step or "")
    assert "secret" not in f"{found.address} {found.error} {found.next_step}"
    assert {(queue.ready, queue.consumers) for queue in found.queues} == {(None, None)}


def _through(relay: Relay, broker: RabbitMq) -> str:
    return broker.url.replace(str(broker.port), str(relay.port))
