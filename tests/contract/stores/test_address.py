"""URLs of servers."""

import pytest

from muster.errors import SetupError
from muster.stores.valkey.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("valkey://localhost", Address(host="localhost")),
        ("redis://10.0.0.1:7000/3", Address(host="10.0.0.1", port=7000, database=3)),
        ("redis://:p%40ss@host", Address(host="host", password="p@ss")),
        ("valkey://me:word@[::1]:1?db=2", Address(host="::1", port=1, user="me", password="word", database=2)),
        ("rediss://host", Address(host="host", tls=True)),
        ("valkeys://host?ssl_ca_certs=/ca.pem", Address(host="host", tls=True, ca_file="/ca.pem")),
        ("unix:///tmp/a%20b/s", Address(path="/tmp/a b/s")),
        ("unix:///s?db=1&username=u&password=p", Address(path="/s", database=1, user="u", password="p")),
    ],
)
def test_a_url_says_where_the_server_is(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert "p" not in address.password or address.password not in address.shown


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://host", "valkey://", "unix://", "valkey://host:port", "valkey://host/x",
     "valkey://host:99999", "valkey://host?unknown=1", "valkey://host?x"],
)  # fmt: skip
def test_a_url_that_cannot_be_is_a_question_of_setup(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse_address(url)
    assert caught.value.next_step
