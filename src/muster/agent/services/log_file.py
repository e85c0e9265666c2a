"""Where a service's output goes: a file that the service writes by itself, so it can go on when we are gone.

It is kept to its size, and read for others, with all other logs of the node (logs/shelf.py).
"""

from pathlib import Path
from typing import BinaryIO

from muster.logs.file import BYTES_MAX, open_for_writing
from muster.logs.file import LogFile as KeptLog
from muster.logs.lines import pieces, readable

_TAIL_BYTES = 4096


class LogFile:
    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max

    def open(self) -> BinaryIO:
        """Return the file for the service to append to; it belongs to the owner alone."""
        return open_for_writing(self.path)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def rotate_if_large(self) -> None:
        """Keep it to its size where nobody tends it; the node's own are tended with all others."""
        KeptLog(self.path, bytes_max=self._bytes_max).rotate()

    def since(self, position: int, lines_max: int = 5) -> list[str]:
        """Return the last lines that were written after `position`."""
        if not self.path.exists():
            return []
        size = self.size()
        begin = position if position <= size else 0  # its front was cut off in between
        with self.path.open("rb") as file:
            file.seek(max(begin, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines_max:]

    def tail(self, lines_max: int, bytes_max: int) -> list[str]:
        """Return the last lines, of older parts as well."""
        kept = KeptLog(self.path)
        block = kept.read(kept.end - bytes_max, kept.end)
        return [readable(raw) for _, raw in pieces(block)][-lines_max:]
