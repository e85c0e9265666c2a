import pytest
from msgspec import Struct

from muster.errors import InvalidInput
from muster.wire import Heartbeat, decode, encode


class Inner(Struct, forbid_unknown_fields=True):
    number: int


class Outer(Struct):
    inner: Inner


def test_what_is_encoded_is_decoded() -> None:
    assert decode(encode(Outer(Inner(1))), Outer) == Outer(Inner(1))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"inner":{"number":"x"}}', "inner.number"),
        (b'{"inner":{"number":1,"extra":2}}', "inner.extra"),
        (b"{}", "inner"),
        (b"[]", None),
    ],
)
def test_what_does_not_fit_names_the_field(body: bytes, field: str | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(body, Outer)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"inner": "\xff"}', b"[" * 5000])
def test_what_is_not_json_is_said_to_be_so(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body, Outer)


def test_fields_of_a_newer_version_are_ignored() -> None:
    body = b'{"facts":{"node_id":"n","later":1},"boot_id":"b","seq":1,"heartbeat_interval_s":5,"new":{}}'
    assert decode(body, Heartbeat).facts.node_id == "n"
