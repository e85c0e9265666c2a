from muster.events.reader import Reader
from muster.events.selection import Selection


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


async def test_only_what_concerns_its_selection_reaches_a_reader() -> None:
    reader = Reader(100, Selection(frozenset({"m1"})))
    reader.push(b"1", lambda selection: selection.has_machine("m1"))
    reader.push(b"2", lambda selection: selection.has_machine("m2"))
    reader.push(b"3")
    assert await reader.take(1) == (b"13", None)


async def test_nothing_comes_at_the_deadline() -> None:
    assert await Reader(100).take(0) == (b"", None)


async def test_a_closed_reader_gives_its_rest_and_then_nothing() -> None:
    reader = Reader(100)
    reader.push(b"a")
    reader.close()
    assert await reader.take(1) == (b"a", None)
    assert await reader.take(1) == (b"", None)
