"""amqps, with an authority of our own."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from muster.ids import NodeId
from muster.links.amqp.address import broker_address
from muster.links.amqp.agent_side import AmqpLink
from muster.system import SystemClock
from tests.certificates import Certificates
from tests.contract.links.amqp_served import RETRY_S
from tests.rabbitmq import PASSWORD, USER, RabbitMq
from tests.waiting import eventually


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificates = Certificates("127.0.0.1")
    (folder / "ca.pem").write_bytes(certificates.authority)
    (folder / "certificate.pem").write_bytes(certificates.certificate)
    (folder / "key.pem").write_bytes(certificates.key)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    broker = RabbitMq(folder / "broker", tls=(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem"))
    try:
        broker.start()
        yield f"amqps://{USER}:{PASSWORD}@127.0.0.1:{broker.tls_port}"
    finally:
        broker.remove()


def link_to(url: str, ca_file: str, opened: asyncio.Event) -> AmqpLink:
    address = broker_address(url, ca_file)
    return AmqpLink(address, NodeId("gpu-1"), SystemClock(), random.Random(1), on_open=opened.set, backoff_s=RETRY_S)


async def test_a_broker_whose_authority_is_trusted_is_reached(url: str, folder: Path) -> None:
    opened = asyncio.Event()
    link = link_to(url, str(folder / "ca.pem"), opened)
    await link.start()
    await asyncio.wait_for(opened.wait(), 30)
    await link.stop()


async def test_one_whose_authority_is_not_trusted_is_told_of_with_the_setting_that_helps(url: str) -> None:
    opened = asyncio.Event()
    link = link_to(url, "", opened)
    with capture_logs() as logs:
        await link.start()
        await eventually(lambda: [line for line in logs if line["event"] == "broker_away"], 30)
        await link.stop()
    assert "certificate that is not trusted" in logs[0]["error"]
    assert "MUSTER_CA_FILE" in logs[0]["next_step"]
    assert PASSWORD not in str(logs)
    assert not opened.is_set()
