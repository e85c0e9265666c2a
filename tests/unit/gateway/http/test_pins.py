import pytest

from muster.errors import InvalidInput
from muster.gateway.http.pins import pinned, priority_asked, said_of_the_worker
from muster.gateway.http.request import forwarded
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


@pytest.mark.parametrize(
    ("said", "priority"), [(b"interactive", 50), (b" Batch ", 0), (b"0", 0), (b"100", 100), (b"", None)]
)
def test_a_priority_is_read_and_is_no_wish_about_the_worker(said: bytes, priority: int | None) -> None:
    assert priority_asked({b"x-priority": said}) == priority
    assert pinned({b"x-priority": said}) is None


@pytest.mark.parametrize("said", [b"101", b"-1", b"high", b"0000000007", b"1.5"])
def test_a_priority_that_cannot_be_read_is_refused_for_whoever_sends_it(said: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        pinned({b"x-priority": said})
    assert refused.value.field == "X-Priority"


def test_who_asks_for_other_workers_is_told_apart() -> None:
    one, other = {b"x-muster-node": b"a", b"x-priority": b"1"}, {b"x-muster-node": b"b"}
    assert said_of_the_worker(one) != said_of_the_worker(other)
    assert said_of_the_worker(one) == said_of_the_worker({b"x-muster-node": b"a"})


def test_pins_are_said_to_us_and_not_passed_on() -> None:
    assert forwarded({b"x-muster-pool": b"p", b"x-mine": b"1"}) == b"x-mine: 1\r\n"
