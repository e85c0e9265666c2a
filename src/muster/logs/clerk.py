"""Who answers what is asked of the logs of one side, and stops as soon as nobody wants to know any more."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import structlog

from muster.clock import Clock
from muster.errors import MusterError, QueueFull
from muster.logs.reading import LogReader
from muster.logs.shelf import LogShelf
from muster.wire.logs import LogAsk, LogChunk, LogChunkReply, LogLine

log = structlog.get_logger()

Send = Callable[[LogChunk], Awaitable[LogChunkReply]]

_ASKS_MAX = 64  # at a time
_KNOWN_MAX = 256  # that were answered, and may come again
_CHUNK_CHARS_MAX = 128 * 1024
_CHUNK_LINES_MAX = 1000
_LOOK_EVERY_S = 0.2
_PACE_S = 0.05  # between chunks of one follower
_SIGN_EVERY_S = 2.0  # a follower without news hears that we live
_GIVE_UP_S = 10.0  # without a control plane that takes what we tell
_RETRY_S = 0.5


class LogClerk:
    """A Lifecycle. `sender` is whose words the answers are."""

    def __init__(self, shelf: LogShelf, send: Send, clock: Clock, *, sender: str) -> None:
        self._shelf = shelf
        self._send = send
        self._clock = clock
        self._sender = sender
        self._running: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, None] = {}

    async def start(self) -> None:
        await self._shelf.start()

    async def stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._shelf.stop()

    def take(self, asks: Iterable[LogAsk]) -> None:
        """Begin to answer those that are new."""
        for ask in asks:
            if ask.ask_id in self._known:
                continue
            self._known[ask.ask_id] = None
            if len(self._known) > _KNOWN_MAX:
                del self._known[next(iter(self._known))]
            task = asyncio.create_task(self._answer(ask), name=f"logs {ask.action}")
            self._running[ask.ask_id] = task
            task.add_done_callback(partial(self._forget, ask.ask_id))

    def _forget(self, ask_id: str, _: asyncio.Task[None]) -> None:
        del self._running[ask_id]

    async def _answer(self, ask: LogAsk) -> None:
        talk = _Talk(ask, self._sender, self._send, self._clock)
        error, code = None, None
        try:
            await self._carry_out(ask, talk)
        except _Unwanted:
            return
        except MusterError as problem:
            error, code = problem.message, problem.code
        except Exception as problem:
            log.exception("logs_not_told", action=ask.action)
            error = f"{type(problem).__name__}: {problem}"
        try:
            await talk.tell(error=error, error_code=code, ended=True)
        except (_Unwanted, MusterError):
            log.debug("last_word_on_logs_not_told", action=ask.action)

    async def _carry_out(self, ask: LogAsk, talk: "_Talk") -> None:
        if len(self._running) > _ASKS_MAX:
            raise QueueFull(f"{_ASKS_MAX} others read the logs here already")
        match ask.action:
            case "list":
                await talk.tell(logs=tuple(await asyncio.to_thread(self._shelf.infos)))
            case "clear":
                names = await asyncio.to_thread(self._shelf.clear, ask.wish.logs)
                log.info("logs_cleared", logs=names)
                infos = await asyncio.to_thread(self._shelf.infos)
                await talk.tell(logs=tuple(info for info in infos if info.name in names))
            case "read":
                await self._read(ask, talk)

    async def _read(self, ask: LogAsk, talk: "_Talk") -> None:
        found = await asyncio.to_thread(self._shelf.matching, ask.wish.logs)
        readers = [LogReader(name, file, ask.wish) for name, file in found.items()]
        await talk.tell()  # heard: however long the search takes, we are at it
        for reader in readers:
            blocks = reader.past(self._clock.now_ms())
            while (lines := await asyncio.to_thread(next, blocks, None)) is not None:
                await talk.tell_lines(lines)
        await talk.tell(caught_up=True)
        if ask.wish.follow:
            await self._follow(readers, talk)

    async def _follow(self, readers: Sequence[LogReader], talk: "_Talk") -> None:
        while True:
            any_news = False
            for reader in readers:
                lines = await asyncio.to_thread(reader.more, self._clock.now_ms())
                left_out, reader.left_out = reader.left_out, 0
                if left_out:
                    await talk.tell(left_out=left_out)
                await talk.tell_lines(lines)
                any_news |= bool(lines or left_out)
            await asyncio.sleep(_PACE_S if any_news else _LOOK_EVERY_S)


class _Talk:
    """What is told to one reader, chunk by chunk."""

    def __init__(self, ask: LogAsk, sender: str, send: Send, clock: Clock) -> None:
        self._ask = ask
        self._sender = sender
        self._send = send
        self._clock = clock
        self._number = 0
        self._told_s = clock.monotonic_s()

    async def tell_lines(self, lines: list[LogLine]) -> None:
        """Tell them; that there are none now and then, too: so it is known that we live, and we, whether to go on."""
        for part in _parted(lines):
            await self.tell(lines=tuple(part))
        if not lines and self._clock.monotonic_s() - self._told_s >= _SIGN_EVERY_S:
            await self.tell()

    async def tell(self, **said: Any) -> None:
        """Send a chunk until it is taken: again while the control plane is away, or its reader slow."""
        self._number += 1
        ask = self._ask
        chunk = LogChunk(node_id=ask.node_id, ask_id=ask.ask_id, sender=self._sender, number=self._number, **said)
        give_up_at_s = self._clock.monotonic_s() + _GIVE_UP_S
        while True:
            try:
                reply = await self._send(chunk)
            except MusterError as error:
                if not error.retriable or self._clock.monotonic_s() > give_up_at_s:
                    raise
                await asyncio.sleep(_RETRY_S)
                continue
            self._told_s = self._clock.monotonic_s()
            if not reply.wanted:
                raise _Unwanted
            if reply.taken:
                return
            give_up_at_s = self._told_s + _GIVE_UP_S
            await asyncio.sleep(_RETRY_S)


class _Unwanted(Exception):
    """Whoever read has gone."""


def _parted(lines: list[LogLine]) -> Iterator[list[LogLine]]:
    part: list[LogLine] = []
    chars = 0
    for line in lines:
        if part and (chars + len(line.text) > _CHUNK_CHARS_MAX or len(part) >= _CHUNK_LINES_MAX):
            yield part
            part, chars = [], 0
        part.append(line)
        chars += len(line.text)
    if part:
        yield part
