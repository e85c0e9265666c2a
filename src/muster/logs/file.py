"""One log: a file that somebody writes by himself, kept to a bounded size, with when its lines were seen.

The writer holds the file open and appends, also while we are away, so it cannot be replaced under him. What is too much
is copied to a part beside it (`.1` the newest) and cut off the front.

Positions count the log's bytes from where it began when we first saw it; the parts and the file are one stream.
"""

import ctypes
import fcntl
import os
import shutil
import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import structlog

log = structlog.get_logger()

BYTES_MAX = 10 * 1024 * 1024
PARTS_MAX = 3  # older ones
_MARKS_MAX = 4096
_COPY_BYTES = 1024 * 1024
_BLOCK_BYTES = 4096  # a file system cuts whole blocks only
_COLLAPSE = 0x08  # FALLOC_FL_COLLAPSE_RANGE
_SEEN = ".seen"


class Part(NamedTuple):
    path: Path
    begin: int
    end: int


class LogFile:
    """Safe to use from several threads. One process at a time tends a log; others may read what it wrote."""

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX, parts_max: int = PARTS_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._parts_max = parts_max
        self._lock = threading.RLock()
        self._marks_path = path.parent / _SEEN / path.stem
        self._base = 0  # where the file begins
        self._size = 0  # of the file, when it was last looked at
        self._written_ms = 0  # and when somebody had last written to it
        self._marks: list[tuple[int, int]] = []  # (up to here, had been seen at this time)
        self._load()

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def lock(self) -> threading.RLock:
        """Held while the front is cut off; who writes in this process writes under it and loses nothing."""
        return self._lock

    def parts(self) -> list[Part]:
        """Return the older parts and the file itself, the oldest first."""
        with self._lock:
            size = self._look()
            found = [Part(self.path, self._base, self._base + size)]
            for number in range(1, self._parts_max + 1):
                path = self._older(number)
                if not path.exists():
                    break
                found.insert(0, Part(path, found[0].begin - path.stat().st_size, found[0].begin))
            return found

    @property
    def end(self) -> int:
        with self._lock:
            size = self._look()
            return self._base + size

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to before `end`, as far as they are still there."""
        with self._lock:
            taken = []
            for part in self.parts():
                first, last = max(begin, part.begin), min(end, part.end)
                if first < last:
                    with suppress(FileNotFoundError), part.path.open("rb") as file:
                        file.seek(first - part.begin)
                        taken.append(file.read(last - first))
            return b"".join(taken)

    def seen_ms(self, position: int) -> int | None:
        """Return when the byte there was first seen; None where that was not noted."""
        with self._lock:
            index = bisect_right(self._marks, position, key=lambda mark: mark[0])
            return self._marks[index][1] if index < len(self._marks) else None

    def before(self, at_ms: int) -> int:
        """Return up to where all had been seen before that time."""
        with self._lock:
            index = bisect_right(self._marks, at_ms, key=lambda mark: mark[1])
            return self._marks[index - 1][0] if index else self.parts()[0].begin

    # --- tending it --------------------------------------------------------------------------------------------------

    def mark(self, now_ms: int) -> int:
        """Note that what is there now has been seen; return by how many bytes it has grown since the last look.

        Of what was written while nobody looked it is known when the last of it was.
        """
        with self._lock:
            seen, last_ms = self._marks[-1] if self._marks else (self.parts()[0].begin, 0)
            end = self.end
            if end <= seen:
                return 0
            now_ms = max(last_ms, min(now_ms, self._written_ms))
            self._marks.append((end, now_ms))
            if len(self._marks) > _MARKS_MAX:
                del self._marks[1:-1:2]  # the time of a line becomes coarser, of the older ones too
                self._save()
            else:
                self._append_mark(end - self._base, now_ms)
            return end - seen

    def rotate(self) -> bool:
        """Put what is too much into a part of its own; return whether it was."""
        with self._lock:
            if self._look() <= self._bytes_max:
                return False
            with self.path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # another process is at it
                    return False
                return self._look() > self._bytes_max and self._put_aside()

    def _put_aside(self) -> bool:
        for number in range(self._parts_max, 0, -1):
            if (older := self._older(number)).exists():
                older.replace(self._older(number + 1)) if number < self._parts_max else older.unlink()
        self._cut_front()
        oldest = self.parts()[0].begin
        self._marks = self._marks[bisect_right(self._marks, oldest, key=lambda mark: mark[0]) :]
        self._save()
        return True

    def clear(self) -> None:
        """Empty it, and forget its older parts; who writes goes on writing."""
        with self._lock:
            for part in self.parts()[:-1]:
                part.path.unlink(missing_ok=True)
            self._base = self.end
            if self.path.exists():
                os.truncate(self.path, 0)
            self._size = 0
            self._marks = []
            self._save()

    def _look(self) -> int:
        """Return the file's size; one that has shrunk was emptied by somebody else, and begins anew."""
        try:
            found = self.path.stat()
            size, self._written_ms = found.st_size, found.st_mtime_ns // 1_000_000
        except FileNotFoundError:
            size = 0
        if size < self._size:
            self._base += self._size
        self._size = size
        return size

    def _cut_front(self) -> None:
        """Copy, until little has come meanwhile, and cut; where there is no room for a copy it is cut all the same."""
        part = self._older(1)
        try:
            with self.path.open("rb") as source, part.open("wb") as copy:
                part.chmod(0o600)
                while os.fstat(source.fileno()).st_size - source.tell() >= _BLOCK_BYTES:
                    shutil.copyfileobj(source, copy, _COPY_BYTES)
                copied = _whole_blocks_cut(self.path, source.tell())
                if copied is None:
                    shutil.copyfileobj(source, copy)
                    os.truncate(self.path, 0)  # what comes between these two lines is lost: there is no better way
                    copied = source.tell()
                copy.truncate(copied)
        except OSError as error:
            log.warning("log_not_kept", path=str(self.path), error=str(error))
            with suppress(OSError):
                part.unlink()
            copied = self._size
            os.truncate(self.path, 0)
        self._base += copied
        self._size = self.path.stat().st_size

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    # --- when lines were seen ----------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Take up the marks of an earlier life, as far as they fit to what is there."""
        with suppress(OSError, ValueError):
            found = [line.split() for line in self._marks_path.read_text().splitlines()]
            marks = [(int(position), int(at_ms)) for position, at_ms in found]
            fits = [mark for mark in marks if mark[0] <= self._look()]
            self._marks = fits if marks == sorted(marks) else []

    def _save(self) -> None:
        """Write the marks as places in the file: those in the older parts are below 0."""
        with suppress(OSError):
            self._marks_path.parent.mkdir(parents=True, exist_ok=True)
            part = self._marks_path.with_suffix(".part")
            part.write_text("".join(f"{position - self._base} {at_ms}\n" for position, at_ms in self._marks))
            part.replace(self._marks_path)

    def _append_mark(self, place: int, at_ms: int) -> None:
        with suppress(OSError):  # no room: lines will have no time after a restart
            self._marks_path.parent.mkdir(parents=True, exist_ok=True)
            with self._marks_path.open("a") as file:
                file.write(f"{place} {at_ms}\n")


def open_for_writing(path: Path) -> BinaryIO:
    """Return a file to append to, without a buffer of our own; it is its owner's alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


def log_files(folder: Path) -> Iterator[Path]:
    """Tell the logs in a folder, without their older parts."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in folder.glob("*.log") if path.is_file())


def _whole_blocks_cut(path: Path, size: int) -> int | None:
    """Take whole blocks off the front, so that not a byte is lost that comes meanwhile; None where that cannot be."""
    wanted = size - size % _BLOCK_BYTES
    if not sys.platform.startswith("linux") or wanted == 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file:
        # ext4 and XFS can, unless it is all that there is.
        done = libc.fallocate(file.fileno(), _COLLAPSE, ctypes.c_long(0), ctypes.c_long(wanted)) == 0
    return wanted if done else None
