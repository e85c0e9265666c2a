from collections.abc import Iterator

import pytest

from tests.contract.links.amqp_served import empty
from tests.rabbitmq import RabbitMq


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    broker = RabbitMq(tmp_path_factory.mktemp("broker"))
    try:
        yield broker.start()
    finally:
        broker.remove()


@pytest.fixture
async def broker_url(broker: RabbitMq) -> str:
    await empty(broker.url)
    return broker.url
