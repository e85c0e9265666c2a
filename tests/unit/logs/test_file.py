"""One log kept to its size under somebody who writes on, and when its lines were seen."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from muster.logs import file as module
from muster.logs.file import LogFile, open_for_writing

BLOCK = 4096


def made(path: Path, *, bytes_max: int = 4 * BLOCK, parts_max: int = 2) -> LogFile:
    return LogFile(path, bytes_max=bytes_max, parts_max=parts_max)


def numbered(first: int, count: int) -> bytes:
    """Return lines of 16 bytes."""
    return b"".join(b"line %010d\n" % number for number in range(first, first + count))


@pytest.fixture(params=["blocks are cut off", "the file is emptied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go both ways of rotation, whatever the file system under the tests can do."""
    if request.param == "the file is emptied":
        monkeypatch.setattr(module, "_whole_blocks_cut", lambda *_: None)
    return str(request.param)


def test_a_log_is_kept_to_its_size_and_nothing_is_lost_between_its_parts(tmp_path: Path, way: str) -> None:
    log = made(tmp_path / "a.log")
    with open_for_writing(log.path) as output:
        for round_number in range(20):
            output.write(numbered(round_number * 300, 300))
            log.rotate()
    parts = log.parts()
    assert len(parts) == 3, way
    assert all(part.end - part.begin <= 4 * BLOCK + 300 * 16 for part in parts)
    whole = log.read(parts[0].begin, parts[-1].end)
    assert numbered(0, 6000).endswith(whole)
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_file()] == ["a.log", "a.log.1", "a.log.2"]


def test_positions_hold_while_the_file_under_them_is_cut(tmp_path: Path, way: str) -> None:
    log = made(tmp_path / "a.log")
    with open_for_writing(log.path) as output:
        output.write(numbered(0, 2000))
        place = 1900 * 16
        assert log.rotate(), way
        output.write(b"new\n")
    assert log.read(place, place + 16) == b"line %010d\n" % 1900
    assert log.read(log.end - 4, log.end) == b"new\n"
    assert log.end == 2000 * 16 + 4


def test_a_small_log_and_one_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    log = made(tmp_path / "a.log")
    assert not log.rotate()
    log.path.write_bytes(b"x\n")
    assert not log.rotate()
    assert log.read(-100, 100) == b"x\n"


def test_without_room_for_a_copy_the_log_is_emptied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    log = made(tmp_path / "a.log")
    log.path.write_bytes(numbered(0, 2000))
    assert log.rotate()
    assert log.path.read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.log"]


def test_clearing_leaves_the_writer_his_file(tmp_path: Path) -> None:
    log = made(tmp_path / "a.log")
    with open_for_writing(log.path) as output:
        output.write(numbered(0, 2000))
        log.rotate()
        log.clear()
        assert log.parts() == [(log.path, 32000, 32000)]
        output.write(b"after\n")
    assert log.read(0, log.end) == b"after\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.log"]


def test_one_that_somebody_else_has_emptied_begins_anew_after_what_was(tmp_path: Path) -> None:
    log = made(tmp_path / "a.log")
    log.path.write_bytes(b"0123456789\n")
    assert log.end == 11
    os.truncate(log.path, 0)
    assert log.end == 11
    log.path.write_bytes(b"new\n")
    assert log.read(11, log.end) == b"new\n"


def wrote(log: LogFile, text: bytes, at_ms: int) -> None:
    with open_for_writing(log.path) as output:
        output.write(text)
    os.utime(log.path, ns=(at_ms * 1_000_000, at_ms * 1_000_000))


def test_a_line_was_seen_when_the_log_was_first_looked_at_after_it(tmp_path: Path) -> None:
    log = made(tmp_path / "a.log")
    wrote(log, b"one\n", 10_000)
    assert log.mark(10_200) == 4
    assert log.mark(10_700) == 0
    wrote(log, b"two\n", 20_000)
    assert log.seen_ms(4) is None
    log.mark(20_100)
    assert (log.seen_ms(0), log.seen_ms(3), log.seen_ms(4)) == (10_000, 10_000, 20_000)
    assert (log.before(9_000), log.before(15_000), log.before(30_000)) == (0, 4, 8)


def test_what_was_written_while_nobody_looked_is_as_old_as_its_last_byte(tmp_path: Path) -> None:
    wrote(made(tmp_path / "a.log"), b"one\n", 10_000)
    log = made(tmp_path / "a.log")
    log.mark(99_000)
    assert log.seen_ms(0) == 10_000


def test_when_lines_were_seen_outlives_the_agent_and_rotation(tmp_path: Path, way: str) -> None:
    log = made(tmp_path / "a.log")
    wrote(log, numbered(0, 1000), 10_000)
    log.mark(10_000)
    wrote(log, numbered(1000, 1000), 20_000)
    log.mark(20_000)
    log.rotate()
    wrote(log, b"new\n", 30_000)
    log.mark(30_000)

    again = made(tmp_path / "a.log")
    oldest = again.parts()[0].begin
    assert again.seen_ms(oldest) == 10_000, way
    assert again.seen_ms(oldest + 1500 * 16) == 20_000
    assert again.seen_ms(again.end - 1) == 30_000


def test_what_is_noted_of_a_long_life_is_bounded(tmp_path: Path) -> None:
    log = made(tmp_path / "a.log")
    for turn in range(5000):
        wrote(log, b"x\n", 1000 * turn)
        log.mark(1000 * turn)
    assert len(log._marks) <= 4096
    assert log.seen_ms(log.end - 1) == 4_999_000
