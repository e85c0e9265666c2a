"""What somebody wishes of a log, across its parts and while it grows."""

import os
from pathlib import Path
from typing import Any

import pytest

from muster.logs.file import LogFile
from muster.logs.reading import BLOCK_BYTES, LogReader
from muster.wire.logs import LogWish

NOW_MS = 1_700_000_000_000


def append(log: LogFile, text: bytes, at_ms: int = NOW_MS) -> None:
    with log.path.open("ab") as file:
        file.write(text)
    os.utime(log.path, ns=(at_ms * 1_000_000, at_ms * 1_000_000))


def reader(log: LogFile, **wish: Any) -> LogReader:
    return LogReader("a", log, LogWish(**wish))


def past(log: LogFile, **wish: Any) -> list[str]:
    return [line.text for block in reader(log, **wish).past(NOW_MS) for line in block]


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "a.log", bytes_max=10_000)


@pytest.fixture
def long_log(log: LogFile) -> LogFile:
    """Make one of some 10,000 lines in several parts, longer than a few blocks."""
    for turn in range(4):
        log.rotate()
        append(log, b"".join(b"line %06d %s\n" % (turn * 2500 + i, b"." * 40) for i in range(2500)))
    return log


def number(text: str) -> int:
    return int(text.split()[1])


def test_all_of_it_comes_in_order_over_all_parts(long_log: LogFile) -> None:
    assert [number(text) for text in past(long_log)] == list(range(10_000))


def test_a_tail_ends_with_the_last_line_and_has_no_more_than_asked(long_log: LogFile) -> None:
    assert [number(text) for text in past(long_log, tail=3)] == [9997, 9998, 9999]
    assert [number(text) for text in past(long_log, tail=9000)] == list(range(1000, 10_000))
    assert past(long_log, tail=0) == []
    assert len(past(long_log, tail=10_000)) == 10_000


def test_what_is_searched_is_found_before_the_tail_is_counted(long_log: LogFile) -> None:
    assert [number(text) for text in past(long_log, tail=2, grep="99 ")] == [9899, 9999]
    assert [number(text) for text in past(long_log, any_of=("000007", "004321"))] == [7, 4321]


def test_a_search_in_lower_case_is_for_any_case_and_knows_no_patterns(log: LogFile) -> None:
    append(log, b"Out Of Memory\nout of luck\na.*b\n")
    assert past(log, grep="out of m") == ["Out Of Memory"]
    assert past(log, grep="Out") == ["Out Of Memory"]
    assert past(log, grep=".*") == ["a.*b"]


def test_a_search_does_not_find_what_is_masked(log: LogFile) -> None:
    append(log, b"connecting to redis://:hunter2@cache\n")
    assert past(log, grep="hunter2") == []
    assert past(log, grep="redis://:***@cache") == ["connecting to redis://:***@cache"]


def test_lines_without_a_time_are_as_old_as_when_they_were_seen(log: LogFile) -> None:
    append(log, b"early\n", NOW_MS - 60_000)
    log.mark(NOW_MS)
    append(log, b"late\n", NOW_MS - 1000)
    (lines,) = reader(log).past(NOW_MS)
    assert [(line.text, line.at_ms, line.seen) for line in lines] == [
        ("early", NOW_MS - 60_000, True),
        ("late", NOW_MS - 1000, True),
    ]
    assert past(log, since_ms=NOW_MS - 5000) == ["late"]
    assert past(log, until_ms=NOW_MS - 5000) == ["early"]


def test_a_level_leaves_out_what_is_less_and_keeps_what_belongs_to_a_line(log: LogFile) -> None:
    append(log, b"starting\nWARNING low\nERROR broke\n  at line 1\n\tat line 2\nDEBUG noise\nready\n")
    assert past(log, level="warning") == ["WARNING low", "ERROR broke", "  at line 1", "\tat line 2"]
    assert past(log, level="info")[0] == "starting"
    assert "DEBUG noise" not in past(log, level="info")


def test_a_follower_gets_each_line_once_and_whole(log: LogFile) -> None:
    append(log, b"one\ntw")
    following = reader(log, tail=10, follow=True)
    assert [line.text for block in following.past() for line in block] == ["one"]
    assert following.more() == []
    append(log, b"o\nthree\n")
    assert [line.text for line in following.more()] == ["two", "three"]
    assert following.more() == []


def test_a_line_without_an_end_is_told_after_a_while(log: LogFile) -> None:
    following = reader(log, follow=True)
    list(following.past())
    append(log, b"continue? [y/n]")
    told = [line.text for _ in range(8) for line in following.more()]
    assert told == ["continue? [y/n]"]
    append(log, b" y\n")
    assert [line.text for line in following.more()] == [" y"]


def test_a_follower_crosses_rotation_and_clearing(log: LogFile) -> None:
    following = reader(log, follow=True)
    list(following.past())
    numbers = []
    for turn in range(8):
        append(log, b"".join(b"line %06d %s\n" % (turn * 100 + i, b"." * 100) for i in range(100)))
        if turn % 2:
            log.rotate()
        while lines := following.more():
            numbers += [number(line.text) for line in lines]
    assert numbers == list(range(800))
    log.clear()
    append(log, b"after\n")
    assert [line.text for line in following.more()] == ["after"]


def test_a_slow_follower_goes_on_near_the_end_and_hears_how_much_it_missed(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    following = reader(log, follow=True)
    list(following.past())
    line = b"." * 99
    append(log, b"".join(b"%06d%s\n" % (i, line) for i in range(80_000)))
    numbers = []
    while lines := following.more():
        numbers += [int(told.text[:6]) for told in lines]
    assert numbers[-1] == 79_999
    assert numbers == list(range(numbers[0], 80_000))
    assert len(numbers) * 106 < 2 * BLOCK_BYTES
    assert following.left_out == numbers[0]


def test_what_was_rotated_away_under_a_follower_is_passed_over(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", bytes_max=1000, parts_max=1)
    following = reader(log, follow=True)
    list(following.past())
    for turn in range(10):
        append(log, b"".join(b"line %06d\n" % (turn * 100 + i) for i in range(100)))
        log.rotate()
    numbers = []
    while lines := following.more():
        numbers += [int(told.text[-6:]) for told in lines]
    assert numbers[-1] == 999
    assert len(numbers) < 300


def test_bytes_that_are_no_text_are_lines_too(log: LogFile) -> None:
    append(log, bytes(range(256)) * 200 + b"\nend\n")
    assert past(log)[-1] == "end"
    append(log, b"\xff" * (3 * BLOCK_BYTES))
    assert past(log, tail=1) == ["\ufffd" * 16_384]
