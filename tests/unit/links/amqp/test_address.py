from pathlib import Path

import pytest

from muster.errors import SetupError
from muster.links.amqp.address import broker_address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://a:b@host", "amqp://a:***@host:5672/agents"),
        ("amqp://host:1234/", "amqp://host:1234/agents"),
        ("amqps://a:b@host/other", "amqps://a:***@host:5671/other"),
        ("amqp://a:b@host/agents?secret=x", "amqp://a:***@host:5672/agents"),
        ("amqp://a@[::1]", "amqp://a@[::1]:5672/agents"),
    ],
)
def test_without_a_path_the_vhost_is_agents_and_no_password_is_shown(url: str, shown: str) -> None:
    assert str(broker_address(url)) == shown


def test_only_amqps_is_encrypted() -> None:
    assert broker_address("amqp://host").tls is None
    assert broker_address("amqps://host").tls is not None


@pytest.mark.parametrize("url", ["http://host", "host:5672", "amqp://", "amqp://host:port", "amqp://[::1", ""])
def test_what_names_no_broker_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(SetupError, match="rabbitmq_url") as caught:
        broker_address(url)
    assert "amqp://USER:PASSWORD@HOST" in caught.value.next_step


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("missing.pem", "empty.pem"):
        (tmp_path / "empty.pem").touch()
        with pytest.raises(SetupError, match=name):
            broker_address("amqps://host", str(tmp_path / name))
