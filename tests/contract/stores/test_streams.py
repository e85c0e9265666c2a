"""Answers that callers may come back for."""

from typing import Any

from muster.domain.stream import KeptStream, StreamEnd, StreamPart
from tests.clocks import ManualClock
from tests.contract.stores.world import Store

OPENING = b"\x00opening\xff"
MUCH = 1_000_000


def part(offset: int = 0, data: bytes = b"", **fields: Any) -> StreamPart:
    told: dict[str, Any] = {"stream_id": "s", "runner": "a", "keep_s": 60.0, "lease_s": 4.0} | fields
    return StreamPart(offset=offset, data=data, **told)


async def write(store: Store, *parts: StreamPart, bytes_max: int = MUCH) -> list[int | None]:
    return await store.streams.write(parts, bytes_max)


async def read(store: Store, offset: int = 0, limit: int = MUCH, stream_id: str = "s") -> KeptStream:
    kept = await store.streams.read(stream_id, offset, limit)
    assert kept is not None
    return kept


async def test_what_was_written_is_read_from_any_offset(store: Store) -> None:
    assert await write(store, part(data=b"\r\n\x00\xff", opening=OPENING), part(4, b"more")) == [0, 0]

    assert await read(store) == KeptStream(opening=OPENING, size=8, data=b"\r\n\x00\xffmore", running=True)
    assert (await read(store, 3, 2)).data == b"\xffm"
    assert (await read(store, 8)).data == b""
    assert (await read(store, 100)).data == b""
    assert (await read(store, 0, 0)).data == b""
    assert await store.streams.read("other", 0, 1) is None


async def test_a_part_that_comes_again_changes_nothing_and_one_that_does_not_follow_is_refused(store: Store) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    for _ in range(2):
        assert await write(store, part(3, b"two")) == [0]
    assert await write(store, part(7, b"x"), part(1, b"y"), part(0, b"three")) == [None, None, None]
    assert await write(store, part(data=b"one", opening=OPENING)) == [None]
    assert (await read(store)).data == b"onetwo"


async def test_after_its_end_nothing_is_added(store: Store) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    for _ in range(2):
        assert await write(store, part(3, b"two", end=StreamEnd.WHOLE)) == [0]
    assert await write(store, part(6, b"x"), part(6, b"x", end=StreamEnd.WHOLE)) == [None, None]

    kept = await read(store)
    assert (kept.data, kept.end, kept.running) == (b"onetwo", StreamEnd.WHOLE, False)
    assert not await store.streams.take("s", "b", 4.0)


async def test_nobody_adds_to_what_another_goes_on_with(store: Store, clock: ManualClock) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    assert not await store.streams.take("s", "b", 4.0)
    clock.advance(4.0)
    assert not (await read(store)).running
    assert await store.streams.take("s", "b", 4.0)
    assert not await store.streams.take("s", "c", 4.0)

    assert await write(store, part(3, b"late")) == [None]
    assert len(await write(store, part(3, b"two", runner="b"))) == 1
    kept = await read(store)
    assert (kept.data, kept.running, kept.handed_over) == (b"onetwo", True, False)


async def test_what_is_given_back_is_taken_at_once(store: Store) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    await write(store, part(3, b"two", lease_s=0.0))

    kept = await read(store)
    assert (kept.data, kept.running, kept.handed_over) == (b"onetwo", False, True)
    assert await store.streams.take("s", "b", 4.0)
    assert not (await read(store)).handed_over


async def test_an_answer_is_gone_when_its_time_is_over_which_every_part_puts_off(
    store: Store, clock: ManualClock
) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    clock.advance(59.0)
    await write(store, part(3))
    clock.advance(59.0)
    assert (await read(store)).data == b"one"
    clock.advance(1.0)
    assert await store.streams.read("s", 0, 1) is None
    assert not await store.streams.take("s", "b", 4.0)
    assert not await store.streams.remove("s")
    assert await write(store, part(3, b"x")) == [None]
    assert await write(store, part(data=b"new", opening=OPENING)) == [0]
    assert (await read(store)).data == b"new"


async def test_no_answer_is_begun_while_too_much_is_kept(store: Store, clock: ManualClock) -> None:
    some = 2 * (len(OPENING) + 10)
    first, second, third = (part(data=b"0123456789", opening=OPENING, stream_id=name) for name in "abc")
    assert await write(store, first, second, third, bytes_max=some) == [0, 0, None]
    assert await write(store, part(10, b"goes on", stream_id="a"), bytes_max=some) == [0]
    clock.advance(60.0)
    assert await write(store, third, second, bytes_max=some) == [0, 0]


async def test_an_answer_that_became_too_long_is_dropped_and_says_so(store: Store) -> None:
    room = len(OPENING) * 2 + 10
    await write(store, part(data=b"0123456789", opening=OPENING))
    for _ in range(2):
        assert await write(store, part(10, end=StreamEnd.DROPPED)) == [0]

    kept = await read(store)
    assert (kept.size, kept.data, kept.end) == (10, b"", StreamEnd.DROPPED)
    assert await write(store, part(data=b"0123456789", opening=OPENING, stream_id="t"), bytes_max=room) == [0]


async def test_who_writes_hears_when_it_was_read(store: Store, clock: ManualClock) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    clock.advance(1.0)
    await read(store)
    read_at_ms = clock.now_ms()
    clock.advance(1.0)
    assert await write(store, part(3, b"two")) == [read_at_ms]


async def test_what_is_removed_is_gone_and_its_room_free(store: Store) -> None:
    await write(store, part(data=b"one", opening=OPENING))
    assert await store.streams.remove("s")
    assert not await store.streams.remove("s")
    assert await write(store, part(3, b"two")) == [None]
    assert await write(store, part(data=b"one", opening=OPENING), bytes_max=len(OPENING) + 3) == [0]
