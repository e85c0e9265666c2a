import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cli.top.keys import read_keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F", ["page_up", "page_down", "home", "end"]),
        (b"\t\r\x7f\x03", ["tab", "enter", "backspace", "ctrl_c"]),
        ("é北".encode(), ["é", "北"]),
        (b"\x1b[15~x", ["x"]),  # a key that means nothing here
        (b"\x1bx", ["escape", "x"]),
        (b"\x00\x01", []),
    ],
)
def test_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    assert read_keys(data, more=True) == (keys, b"")


@pytest.mark.parametrize("begun", [b"\x1b", b"\x1b[", b"\x1b[5", "é".encode()[:1]])
def test_a_key_that_has_not_come_whole_is_waited_for_but_not_for_ever(begun: bytes) -> None:
    assert read_keys(begun, more=True) == ([], begun)

    keys, rest = read_keys(begun, more=False)
    assert rest == b""
    assert keys[:1] == (["escape"] if begun[0] == 0x1B else ["�"])


@given(st.binary(max_size=40), st.booleans())
def test_no_bytes_can_break_it(data: bytes, more) -> None:
    _, rest = read_keys(data, more=more)

    assert len(rest) < 8
    assert more or not rest
