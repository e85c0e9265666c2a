import pytest

from muster.errors import InvalidInput
from muster.gateway.pins import pinned
from muster.gateway.request import forwarded
from muster.placement.wish import Wish


def test_who_pins_nothing_wishes_nothing() -> None:
    assert pinned({b"host": b"h", b"x-other": b"1"}) is None


def test_headers_become_a_wish() -> None:
    headers = {
        b"x-muster-pool": b" n1/pool-0 ",
        b"x-muster-node": b"n1",
        b"x-muster-labels": b"zone=a, tier=fast",
        b"x-muster-min-vram-mb": b"16000",
    }
    wish = Wish(pool="n1/pool-0", node_id="n1", labels={"zone": "a", "tier": "fast"}, min_memory_mb=16000)  # type: ignore[arg-type]  # an id is a text
    assert pinned(headers) == wish


@pytest.mark.parametrize(
    ("name", "value"), [("X-Muster-Labels", "zone"), ("X-Muster-Labels", "=a"), ("X-Muster-Min-Vram-Mb", "1.5")]
)
def test_a_pin_that_cannot_be_read_is_refused_by_its_header(name: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pinned({name.lower().encode(): value.encode()})
    assert refused.value.field == name


def test_pins_are_said_to_us_and_not_passed_on() -> None:
    assert forwarded({b"x-muster-pool": b"p", b"x-mine": b"1"}) == b"x-mine: 1\r\n"
