"""A program in a pseudo-terminal, and what stands on its screen."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import eventually_sync

_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b.|([\r\n\b\x07])")
_END_S = 10.0


class Screen:
    """As much of a terminal as programs here use: places, clearing, two screens. Styles are noted, not shown."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.styles: set[str] = set()
        self.other = False  # on the second screen
        self.cursor = True
        self.overflowed = False
        self._rest = ""
        self._clear()

    def _clear(self) -> None:
        self._cells = [[" "] * self.width for _ in range(self.height)]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        at = 0
        while at < len(text):
            if text[at] in "\x1b\r\n\b\x07":
                found = _CONTROL.match(text, at)
                if found is None:
                    self._rest = text[at:]
                    return
                self._obey(found)
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, char: str) -> None:
        if self._column >= self.width or self._row >= self.height:
            self.overflowed = True
            return
        self._cells[self._row][self._column] = char
        self._column += 1

    def _obey(self, found: re.Match[str]) -> None:
        arguments, command, char = found.groups()
        if char == "\n":
            self._row, self._column = self._row + 1, 0
        elif char == "\r":
            self._column = 0
        elif command == "H":
            row, _, column = arguments.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif command == "J":
            self._clear()
        elif command == "m":
            self.styles.update(arguments.split(";"))
        elif command in {"h", "l"} and arguments == "?1049":
            self.other = command == "h"
        elif command in {"h", "l"} and arguments == "?25":
            self.cursor = command == "h"

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class TerminalProgram:
    """Started on entry, killed on exit unless it has ended."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, size: tuple[int, int]) -> None:
        self._command = command
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")} | dict(env)
        self._cwd = cwd
        self._size = size
        self.screen = Screen(*size)

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        self._tell_size(*self._size)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            self._command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_END_S)
        for end in (self._ours, self._theirs):
            with contextlib.suppress(OSError):
                os.close(end)

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, width: int, height: int) -> None:
        self.look()
        self.screen = Screen(width, height)
        self._tell_size(width, height)
        os.kill(self.process.pid, signal.SIGWINCH)

    def _tell_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def look(self) -> str:
        """Read what came, and return the screen."""
        while select.select([self._ours], [], [], 0)[0]:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:
                break
            if not data:
                break
            self.screen.feed(data.decode(errors="replace"))
        return self.screen.text

    def until(self, *words: str, without: str = "", timeout_s: float = 15.0) -> str:
        """Wait until all of these stand on the screen, and this does not."""

        def seen() -> str:
            text = self.look()
            assert all(word in text for word in words), text
            assert not without or without not in text, text
            return text

        return eventually_sync(seen, timeout_s)

    def ended(self) -> int:
        """Wait until it has ended; return its exit code."""

        def code() -> list[int]:
            self.look()  # who does not read keeps it from writing its last words
            ended = self.process.poll()
            return [] if ended is None else [ended]

        (code_,) = eventually_sync(code, _END_S)
        self.look()
        return code_
