"""What Muster says itself, kept in files as well: one for each of its parts, one JSON object a line."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from muster.access.masking import mask
from muster.clock import Clock
from muster.logs.file import open_for_writing

_FLUSH_EVERY_S = 0.25
_WAITING_MAX = 500  # notes between two flushes; of more it is only told how many


class OwnLog:
    """The log of one part. What cannot be written is not kept: a full disk must not stop who speaks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def write(self, lines: bytes) -> None:
        with suppress(OSError):
            if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
                self.close()  # somebody has removed the file
            if self._descriptor is None:
                with open_for_writing(self.path) as file:
                    self._descriptor = os.dup(file.fileno())
            os.write(self._descriptor, lines)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_speaker: ContextVar[OwnLog | None] = ContextVar("speaker", default=None)
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))


def speak_as(own_log: OwnLog) -> None:
    """Keep what this task says there from now on, and what the tasks say that it starts."""
    _speaker.set(own_log)


def speaker() -> OwnLog | None:
    return _speaker.get()


@contextmanager
def speaking_as(own_log: OwnLog | None) -> Iterator[None]:
    """Be somebody else for a while: what one part does within another's task it says under its own name."""
    token = _speaker.set(own_log)
    try:
        yield
    finally:
        _speaker.reset(token)


def speak_about(**ids: str) -> None:
    """Let all that this task says from now on, and what the tasks say that it starts, carry these ids."""
    _about.set(ids)


def spoken_about() -> Mapping[str, str]:
    return _about.get()


def keep(said: dict[str, Any]) -> None:
    """Keep an event in the log of whoever speaks."""
    if (own_log := _speaker.get()) is not None:
        own_log.write(mask(msgspec.json.encode(said, enc_hook=str).decode()).encode() + b"\n")


Facts = Callable[[], Mapping[str, Any]]
_Note = tuple[int, str, str, Facts]


class Notes:
    """A Lifecycle: lines that come by the thousand, written together a few times a second."""

    def __init__(self, own_log: OwnLog, clock: Clock) -> None:
        self._own_log = own_log
        self._clock = clock
        self._waiting: list[_Note] = []
        self._left_out = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, level: str, event: str, facts: Facts) -> None:
        self.add_each(event, [(level, facts)])

    def add_each(self, event: str, notes: Sequence[tuple[str, Facts]]) -> None:
        """Take notes; their facts are asked for when they are written, and not at all when there are too many."""
        taken = notes[: max(0, _WAITING_MAX - len(self._waiting))]
        self._left_out += len(notes) - len(taken)
        if taken:
            now_ms = self._clock.now_ms()
            self._waiting += [(now_ms, level, event, facts) for level, facts in taken]

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="notes")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.flush(self._clock.now_ms())
        self._own_log.close()

    def flush(self, now_ms: int) -> None:
        waiting, self._waiting = self._waiting, []
        left_out, self._left_out = self._left_out, 0
        if left_out:
            waiting.append((now_ms, "warning", "lines_left_out", lambda: {"count": left_out}))
        if waiting:
            self._own_log.write(b"".join(map(_encoded, waiting)))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            if self._waiting:
                await asyncio.to_thread(self.flush, self._clock.now_ms())


def _encoded(note: _Note) -> bytes:
    at_ms, level, event, facts = note
    second, ms = divmod(at_ms, 1000)
    said = {"timestamp": f"{_second(second)}.{ms:03}Z", "level": level, "event": event, **facts()}
    return msgspec.json.encode(said, enc_hook=str) + b"\n"


@lru_cache(maxsize=8)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
