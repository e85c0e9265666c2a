"""Where a service's output goes: files of bounded size that the service writes by itself."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_BYTES_MAX = 10 * 1024 * 1024
_KEPT = 3  # older ones
_TAIL_BYTES = 4096


class LogFile:
    def __init__(self, path: Path, bytes_max: int = _BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max

    def open(self) -> BinaryIO:
        """Return the file for the service to append to; it belongs to the owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def rotate_if_large(self) -> None:
        """Copy and empty: the service holds the file open, and goes on at the new end of it.

        Where there is no room for a copy it is emptied all the same.
        """
        if self.size() <= self._bytes_max:
            return
        for number in range(_KEPT - 1, 0, -1):
            if (older := self._older(number)).exists():
                older.replace(self._older(number + 1))
        with suppress(OSError):
            shutil.copyfile(self.path, self._older(1))
        os.truncate(self.path, 0)

    def since(self, position: int, lines_max: int = 5) -> list[str]:
        """Return the last lines that were written after `position`."""
        if not self.path.exists():
            return []
        size = self.size()
        begin = position if position <= size else 0  # it was emptied in between
        text = _end_of(self.path, min(_TAIL_BYTES, size - begin)).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines_max:]

    def tail(self, lines_max: int, bytes_max: int) -> list[str]:
        """Return the last lines, of the file before the present one as well when that is short."""
        found: list[str] = []
        for path in (self.path, self._older(1)):
            if path.exists() and len(found) < lines_max and bytes_max > 0:
                text = _end_of(path, bytes_max)
                bytes_max -= len(text)
                found = [*text.decode(errors="replace").splitlines(), *found]
        return found[-lines_max:]

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _end_of(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - bytes_max))
        return file.read(bytes_max)
