import pytest
from msgspec import DecodeError, Struct

from muster.errors import InvalidInput
from muster.wire import Heartbeat, decode, encode
from muster.wire.codec import not_json


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


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "it ends in the middle"),
        (b'{"inner": }', "invalid character in line 1, column 11"),
        (b'{\n  "inner": {\n    "number": 1,\n  }\n}', "trailing comma in object in line 4, column 3"),
        ('{"ä": }'.encode(), "invalid character in line 1, column 7"),
        (b"\xff\xfe", "invalid character in line 1, column 1"),
    ],
)
def test_what_is_not_json_is_told_with_its_place(body: bytes, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(body, Outer)
    assert caught.value.message.startswith("the body is not valid JSON: ")
    assert why in caught.value.message


@pytest.mark.parametrize("body", [b'{"inner": "\xff"}', b"[" * 5000])
def test_what_is_not_json_further_in_does_not_fit(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body, Outer)


def test_without_the_body_the_place_is_the_byte() -> None:
    assert not_json(DecodeError("JSON is malformed: invalid character (byte 7)")).message.endswith("character (byte 7)")


def test_fields_of_a_newer_version_are_ignored() -> None:
    body = b'{"facts":{"node_id":"n","later":1},"boot_id":"b","seq":1,"heartbeat_interval_s":5,"new":{}}'
    assert decode(body, Heartbeat).facts.node_id == "n"
