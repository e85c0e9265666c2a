"""Logs of nodes, and of the control planes themselves, for people who look: asked for, put together, let go.

What is asked travels with a node's commands, over whatever link it has; the answer comes in chunks over a call of its
own. All control planes on the bus know what is asked, so it does not matter which of them a node talks to: chunks that
reach another one are passed on. An ask that is not repeated is over, so nobody sends for long what nobody reads.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Literal

import structlog
from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Clock, Rng
from muster.control.fleet.fleet import Fleet
from muster.errors import Conflict, Forbidden, MusterError, NodeNotConnected, NotFound, UpstreamFailed, UpstreamTimeout
from muster.ids import NodeId, new_id
from muster.logs.clerk import LogClerk
from muster.logs.shelf import LogShelf
from muster.ports import Bus
from muster.rounds import Rounds
from muster.wire import LogAsk, LogChunk, LogChunkReply, decode, encode
from muster.wire.logs import LogInfo, LogWish
from muster.wire.pools import LINK as V2_LINK

log = structlog.get_logger()

CONTROL_PLANE = NodeId("control-plane")  # under this name all control planes answer
LOGS_TOPIC = "logs"

_READERS_MAX = 256
_FIRST_WORD_S = 10.0
_SILENCE_S = 6.0
_REPEAT_S = 2.0
_KEPT_S = 7.0  # an ask that is not repeated
_AGAIN_S = 1.0  # until a node is sent what it has not answered
_CHUNKS_MAX = 16  # that wait for one reader
_ROOM_WAIT_S = 5.0
_UNHEARD_S = 1.0  # a chunk may come before the bus tells that it was asked for
_BUS_RETRY_S = 0.5


class _News(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What control planes tell each other of one ask."""

    ask: LogAsk
    answered: bool = False
    over: bool = False


class _Asked:
    """An ask, ours or another control plane's."""

    def __init__(self, ask: LogAsk) -> None:
        self.ask = ask
        self.until_s = 0.0
        self.sent_s = float("-inf")
        self.answered = False


class _Reading:
    """One ask of ours, and what has come of it."""

    def __init__(self, ask: LogAsk, senders: Sequence[str], now_s: float) -> None:
        self.ask = ask
        self.heard_s = dict.fromkeys(senders, now_s)  # those that have not ended
        self.limit_s = dict.fromkeys(senders, _FIRST_WORD_S)
        self.behind = set(senders)  # those that have not told all that was there
        self.left_out = 0  # what came over the bus faster than it was read
        self._senders = len(senders)
        self._without = 0  # of them: have no such log
        self._numbers: dict[str, int] = {}
        self._chunks: deque[LogChunk] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, chunk: LogChunk, now_s: float, wait_s: float) -> bool:
        """Return whether it was taken: at once, as soon as there is room, or before."""
        if chunk.number <= self._numbers.get(chunk.sender, 0):
            return True
        self.heard_s[chunk.sender], self.limit_s[chunk.sender] = now_s, _SILENCE_S
        if len(self._chunks) >= _CHUNKS_MAX and wait_s:
            self._room.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._room.wait()
        if len(self._chunks) >= _CHUNKS_MAX and not chunk.ended:
            return False
        self._numbers[chunk.sender] = chunk.number
        if chunk.ended:
            del self.heard_s[chunk.sender]
        self._chunks.append(chunk)
        self._news.set()
        return True

    async def take(self, wait_s: float) -> LogChunk | None:
        """Return the next, None where none came in that time."""
        if not self._chunks:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
        if not self._chunks:
            return None
        self._room.set()
        return self._chunks.popleft()

    def judged(self, chunk: LogChunk) -> LogChunk:
        """Return it without its error where only this one of several has no such log."""
        if chunk.error_code != NotFound.code:
            return chunk
        self._without += 1
        return chunk if self._without == self._senders else replace(chunk, error=None, error_code=None)

    def wake(self) -> None:
        """Let who waits look again."""
        self._news.set()

    @property
    def is_over(self) -> bool:
        return not self.heard_s and not self._chunks


class LogDesk:
    """A Lifecycle. `planes` tells the other control planes that are heard."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        clock: Clock,
        rng: Rng,
        shelf: LogShelf,
        *,
        plane_id: str,
        planes: Callable[[], Sequence[str]],
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._clock = clock
        self._rng = rng
        self._plane_id = plane_id
        self._planes = planes
        self._clerk = LogClerk(shelf, self.take, clock, sender=plane_id)
        self._asked: dict[str, _Asked] = {}
        self._readings: dict[str, _Reading] = {}
        self._heard = asyncio.Event()
        self._listeners: list[Callable[[NodeId], None]] = []
        self._rounds = Rounds()
        self._closing = False

    async def start(self) -> None:
        if not self._rounds:
            await self._clerk.start()
            self._rounds.go("log_asks", self._repeat, 0)
            self._rounds.go("logs_of_others", self._hear_news, _BUS_RETRY_S)
            self._rounds.go("logs_passed_on", self._hear_passed_on, _BUS_RETRY_S)

    async def stop(self) -> None:
        """Let go of everybody who reads: streams that never end would hold the front up."""
        self._closing = True
        for reading in self._readings.values():
            reading.wake()
        await self._rounds.stop()
        await self._clerk.stop()

    def on_ask(self, listener: Callable[[NodeId], None]) -> None:
        """Be told of each node that is to be asked something."""
        self._listeners.append(listener)

    # --- for people --------------------------------------------------------------------------------------------------

    async def infos(self, node_id: NodeId) -> list[LogInfo]:
        """Return the logs that a node has, by name; those of several control planes taken together."""
        return await self._ask(node_id, "list", LogWish())

    async def clear(self, node_id: NodeId, log_name: str) -> list[LogInfo]:
        """Empty a log, or those that a pattern with `*` names; return them as they are then."""
        return await self._ask(node_id, "clear", LogWish(logs=(log_name,)))

    async def _ask(self, node_id: NodeId, action: Literal["list", "clear"], wish: LogWish) -> list[LogInfo]:
        infos: list[LogInfo] = []
        async for chunk in self.chunks(node_id, action, wish):
            if chunk.error is not None:
                raise error_of(chunk)
            infos += chunk.logs
        return sorted(infos, key=lambda info: info.name)

    async def chunks(
        self, node_id: NodeId, action: Literal["list", "read", "clear"], wish: LogWish
    ) -> AsyncGenerator[LogChunk, None]:
        """Yield what a node answers, up to its end; UpstreamTimeout when it falls silent before.

        Raises NodeNotFound, NodeNotConnected or Conflict at the first step where nobody is to be asked.
        """
        senders = self._senders(node_id)
        if len(self._readings) >= _READERS_MAX:
            raise Conflict(f"{_READERS_MAX} others read logs here already")
        now_s = self._clock.monotonic_s()
        ask_id = new_id("logs", self._clock.now_ms(), self._rng)
        ask = LogAsk(ask_id=ask_id, plane_id=self._plane_id, node_id=node_id, action=action, wish=wish)
        reading = self._readings[ask_id] = _Reading(ask, senders, now_s)
        try:
            await self._tell(_News(ask=ask))
            while not (reading.is_over or self._closing):
                chunk = await reading.take(_AGAIN_S)
                if chunk is not None:
                    if chunk.caught_up or chunk.ended:
                        reading.behind.discard(chunk.sender)
                    yield replace(reading.judged(chunk), caught_up=not reading.behind)
                else:
                    self._check_silence(reading)
                if left_out := reading.left_out:
                    reading.left_out = 0
                    yield LogChunk(node_id=node_id, ask_id=ask_id, sender="", number=0, left_out=left_out)
        finally:
            del self._readings[ask_id]
            await self._tell(_News(ask=ask, over=True))

    def _senders(self, node_id: NodeId) -> list[str]:
        if node_id == CONTROL_PLANE:
            return [self._plane_id, *self._planes()]
        node = self._fleet.node(node_id)
        if node.link == V2_LINK:
            raise Conflict(f"{node_id} has no agent of ours: its logs are on the machine itself")
        if not node.connected:
            raise NodeNotConnected(f"{node_id} is not connected: its logs are on the machine itself", field="node_id")
        return [node_id]

    def _check_silence(self, reading: _Reading) -> None:
        now_s = self._clock.monotonic_s()
        for sender, heard_s in reading.heard_s.items():
            limit_s = reading.limit_s[sender]
            if now_s - heard_s > limit_s:
                first = limit_s == _FIRST_WORD_S
                what = "has not answered" if first else "has fallen silent"
                hint = "; it sends logs to the control plane by HTTP (setting control_plane)" if first else ""
                raise UpstreamTimeout(f"{reading.ask.node_id} {what} for {limit_s:g} s{hint}")

    # --- for nodes ---------------------------------------------------------------------------------------------------

    def asks_for(self, node_id: NodeId) -> tuple[LogAsk, ...]:
        """Return what a node is to be asked now."""
        now_s = self._clock.monotonic_s()
        due = []
        for asked in self._asked.values():
            if asked.ask.node_id == node_id and not asked.answered and now_s - asked.sent_s >= _AGAIN_S:
                asked.sent_s = now_s
                due.append(asked.ask)
        return tuple(due)

    async def take(self, chunk: LogChunk) -> LogChunkReply:
        """Take a part of an answer; say whether there is to be more."""
        reading = self._readings.get(chunk.ask_id)
        if reading is not None:
            _check_sender(reading.ask, chunk)
            taken = await reading.put(chunk, self._clock.monotonic_s(), _ROOM_WAIT_S)
            self._asked[chunk.ask_id].answered = True
            return LogChunkReply(wanted=chunk.ask_id in self._readings, taken=taken)
        asked = await self._known(chunk.ask_id)
        if asked is None:
            return LogChunkReply(wanted=False)
        _check_sender(asked.ask, chunk)
        asked.answered = True
        await self._bus.publish(self._topic_of(asked.ask.plane_id), encode(chunk))
        return LogChunkReply(wanted=True)

    async def _known(self, ask_id: str) -> _Asked | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNHEARD_S):
                while ask_id not in self._asked:
                    self._heard.clear()
                    await self._heard.wait()
        return self._asked.get(ask_id)

    # --- between control planes --------------------------------------------------------------------------------------

    async def _tell(self, news: _News) -> None:
        """Know it ourselves, and tell the others; without the bus there are none."""
        self._hear(news)
        with suppress(MusterError):
            await self._bus.publish(LOGS_TOPIC, encode(news))

    def _hear(self, news: _News) -> None:
        ask = news.ask
        if news.over:
            self._asked.pop(ask.ask_id, None)
            return
        asked = self._asked.setdefault(ask.ask_id, _Asked(ask))
        asked.until_s = self._clock.monotonic_s() + _KEPT_S
        asked.answered |= news.answered
        self._heard.set()
        if ask.node_id == CONTROL_PLANE:
            self._clerk.take([ask])
        elif not asked.answered:
            for listener in self._listeners:
                listener(ask.node_id)

    async def _take_news(self, data: bytes) -> None:
        news = decode(data, _News)
        if news.ask.plane_id != self._plane_id:  # ours we know
            self._hear(news)

    async def _take_passed_on(self, data: bytes) -> None:
        chunk = decode(data, LogChunk)
        reading = self._readings.get(chunk.ask_id)
        if reading is None:
            return
        self._asked[chunk.ask_id].answered = True
        if not await reading.put(chunk, self._clock.monotonic_s(), 0.0):
            reading.left_out += len(chunk.lines) + chunk.left_out  # nobody waits at the other end of a bus

    async def _repeat(self) -> None:
        await asyncio.sleep(_REPEAT_S)
        now_s = self._clock.monotonic_s()
        for ask_id in [ask_id for ask_id, asked in self._asked.items() if asked.until_s < now_s]:
            if ask_id not in self._readings:
                del self._asked[ask_id]
        for reading in list(self._readings.values()):
            asked = self._asked[reading.ask.ask_id]
            await self._tell(_News(ask=reading.ask, answered=asked.answered))

    async def _hear_news(self) -> None:
        async for data in self._bus.subscribe(LOGS_TOPIC):
            await self._take_news(data)

    async def _hear_passed_on(self) -> None:
        async for data in self._bus.subscribe(self._topic_of(self._plane_id)):
            await self._take_passed_on(data)

    @staticmethod
    def _topic_of(plane_id: str) -> str:
        return f"{LOGS_TOPIC}:{plane_id}"


def error_of(chunk: LogChunk) -> MusterError:
    """Return as an error of ours what a node told as one of its own."""
    kind = NotFound if chunk.error_code == NotFound.code else UpstreamFailed
    return kind(f"{chunk.node_id}: {chunk.error}")


def _check_sender(ask: LogAsk, chunk: LogChunk) -> None:
    if chunk.node_id != ask.node_id:
        raise Forbidden(f"{chunk.node_id} was not asked", field="node_id")
