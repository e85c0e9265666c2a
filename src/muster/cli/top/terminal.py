"""The terminal itself: taken over whole, painted line by line, given back as it was."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from muster.cli.top.frame import Size
from muster.cli.top.keys import read_keys

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the other screen, no cursor, empty
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # shown at once, where the terminal can
_REST_OF_KEY_S = 0.05
_READ_BYTES = 1024
_FALLBACK = Size(80, 24)


class Terminal:
    """What is written is only what changed since the last frame: over a slow line that is most of the speed."""

    def __init__(self) -> None:
        self._in = sys.stdin.fileno()
        self._out = sys.stdout
        self._before: list[Any] = []
        self._signals: dict[int, Any] = {}
        self._shown: list[Text] = []
        self._size = _FALLBACK
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._begun = b""  # a key of which not all bytes have come
        self._console = Console(file=self._out, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._in)
        for number, act in ((signal.SIGWINCH, self._on_resize), (signal.SIGTSTP, self._on_pause)):
            self._signals[number] = signal.signal(number, act)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._signals[number] = signal.signal(number, _on_end)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, act in self._signals.items():
            signal.signal(number, act)
        self._give_back()
        for end in (self._wake_read, self._wake_write):
            os.close(end)

    @property
    def size(self) -> Size:
        try:
            found = os.get_terminal_size(self._out.fileno())
        except OSError:
            return _FALLBACK
        return Size(found.columns or _FALLBACK.width, found.lines or _FALLBACK.height)

    def wake(self) -> None:
        """End the wait for keys; from any thread."""
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # it is woken already
        except OSError:
            return  # it was closed: nobody waits any more

    def keys(self, wait_s: float, *, only_keys: bool = False) -> list[str] | None:
        """Return what was pressed within `wait_s`, or before somebody woke us; None: the terminal is gone."""
        watched = [self._in] if only_keys else [self._in, self._wake_read]
        ready, _, _ = select.select(watched, [], [], wait_s)
        if self._wake_read in ready:
            os.read(self._wake_read, _READ_BYTES)
        if self._in not in ready:
            return []
        try:
            data = os.read(self._in, _READ_BYTES)
        except OSError:
            return None
        if not data:
            return None
        keys, rest = read_keys(data, more=True)
        while rest:
            ready, _, _ = select.select([self._in], [], [], _REST_OF_KEY_S)
            data = os.read(self._in, _READ_BYTES) if ready else b""
            more, rest = read_keys(rest + data, more=bool(data))
            keys += more
        return keys

    def paint(self, lines: Sequence[Text], size: Size) -> None:
        parts = []
        if size != self._size or not self._shown:
            parts.append("\x1b[0m\x1b[2J")
            self._size, self._shown = size, []
        for number, line in enumerate(lines):
            if number >= len(self._shown) or self._shown[number] != line:
                parts.append(f"\x1b[{number + 1};1H{self._drawn(line, size.width)}")
        self._shown = list(lines)
        if parts:
            self._out.write(_BEGIN + "".join(parts) + _END)
            self._out.flush()

    def _drawn(self, line: Text, width: int) -> str:
        """Fill the whole line, so that nothing of the one before is left and nothing has to be erased first."""
        whole = line.copy()
        whole.truncate(width, overflow="crop", pad=True)
        with self._console.capture() as capture:
            self._console.print(whole, end="", no_wrap=True, crop=False)
        return capture.get()

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        mode = termios.tcgetattr(self._in)
        mode[6][termios.VINTR] = b"\x00"  # Ctrl-C is a key like any other
        termios.tcsetattr(self._in, termios.TCSADRAIN, mode)
        self._shown = []
        self._out.write(_ENTER)
        self._out.flush()

    def _give_back(self) -> None:
        self._out.write(_LEAVE)
        self._out.flush()
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _on_pause(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and we take it again with `fg`."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self.wake()


def _on_end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
