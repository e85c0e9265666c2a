import asyncio

from muster.events.reader import Reader


async def test_frames_that_wait_are_taken_joined() -> None:
    reader = Reader(100)
    reader.push(b"a")
    reader.push(b"b")
    assert await reader.take(1) == (b"ab", None)


async def test_lesson_a_slow_reader_loses_what_waits_and_is_told() -> None:
    reader = Reader(3)
    reader.push(b"ab")
    reader.push(b"cd")
    reader.push(b"e")
    assert await reader.take(1) == (b"", "this reader was too slow")
    reader.push(b"f")
    assert await reader.take(1) == (b"f", None)


async def test_what_can_be_written_at_once_goes_past_the_line_only_while_somebody_waits_at_its_end() -> None:
    written: list[bytes] = []
    can_write = True

    def write_now(data: bytes) -> bool:
        if can_write:
            written.append(data)
        return can_write

    reader = Reader(100, write_now=write_now)
    reader.push(b"1")  # nobody waits: what was taken before may still be on its way
    assert await reader.take(1) == (b"1", None)
    taking = asyncio.create_task(reader.take(10))
    await asyncio.sleep(0)
    reader.push(b"2")
    can_write = False
    reader.push(b"3")  # the caller reads slowly
    can_write = True
    reader.push(b"4")  # not before what waits
    assert await taking == (b"34", None)
    assert written == [b"2"]


async def test_after_a_gap_nothing_is_written_before_it_was_told() -> None:
    written: list[bytes] = []

    def write_now(data: bytes) -> bool:
        written.append(data)
        return True

    reader = Reader(3, write_now=write_now)
    taking = asyncio.create_task(reader.take(10))
    await asyncio.sleep(0)
    reader.lose("too much at once")
    reader.push(b"1")
    assert await taking == (b"", "too much at once")
    assert written == []


async def test_nothing_comes_at_the_deadline() -> None:
    assert await Reader(100).take(0) == (b"", None)


async def test_a_closed_reader_gives_its_rest_and_then_nothing() -> None:
    reader = Reader(100)
    reader.push(b"a")
    reader.close()
    assert await reader.take(1) == (b"a", None)
    assert await reader.take(1) == (b"", None)


async def test_a_stream_that_was_just_written_to_needs_no_sign_of_life() -> None:
    reader = Reader(100, write_now=lambda _: True)
    taking = asyncio.create_task(reader.take(0.02))
    await asyncio.sleep(0)
    reader.push(b"1")
    assert await taking == (b"", None)
    assert not reader._written  # a second wait went by in which nothing came
