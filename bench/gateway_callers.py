"""Callers of the soak: they ask in three dialects, read slowly or not at all, and leave when they like.

Each says how its request went: `answered`, `told` (an explicit error within an answer that had begun), the status of a
refusal, `left`, `closed` (the connection of the request before was closed meanwhile, which HTTP allows at any time), or
one of the two that must not be: `silent`, an answer that ended too early without saying so, and `lost`, no answer.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

SILENT, LOST, LEFT, CLOSED, ANSWERED, TOLD = "silent", "lost", "left", "closed", "answered", "told"
_CHAT, _COMPLETIONS, _MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
_OLLAMA = ("/api/chat", "/api/generate")
_PATHS = (_CHAT, _CHAT, _COMPLETIONS, _MESSAGES, *_OLLAMA)
_STREAMS = 0.7
_LEAVES = 0.2
_SLOW = 0.05
_AGAIN = 0.5  # on the same connection
_REFUSED_S = 0.5  # until somebody who was refused comes again
_DEADLINE_S = 30.0
_POINTS = ("before", "in the head", "in the body", "at once", "soon", "within the answer")
_ENDS = {_MESSAGES: b"message_stop"} | dict.fromkeys(_OLLAMA, b'"done":true')


class Caller:
    """One after another, as long as `goes_on` says so."""

    def __init__(self, port: int, rng: random.Random, outcomes: Counter[str]) -> None:
        self._port = port
        self._rng = rng
        self._outcomes = outcomes
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def live(self, goes_on: Callable[[], bool]) -> None:
        try:
            while goes_on():
                kept = self._connection
                try:
                    async with asyncio.timeout(_DEADLINE_S):
                        outcome = await self._ask()
                except TimeoutError:
                    outcome = LOST
                except (OSError, asyncio.IncompleteReadError):
                    outcome = CLOSED if kept is not None and kept is self._connection else LOST
                self._outcomes[outcome] += 1
                if outcome != ANSWERED or self._rng.random() > _AGAIN:
                    self._hang_up()
                if outcome.isdigit():
                    await asyncio.sleep(_REFUSED_S * self._rng.random())
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None

    async def _ask(self) -> str:
        rng, path = self._rng, self._rng.choice(_PATHS)
        slow = rng.random() < _SLOW
        streams = slow or rng.random() < _STREAMS
        if self._connection is None or slow:
            self._hang_up()
            # Who reads slowly has little room, so that the gateway has to hold its engine back.
            self._connection = await asyncio.open_connection("127.0.0.1", self._port, limit=1024 if slow else 2**18)
        reader, writer = self._connection
        said = "a long answer" if slow else "hello"
        asked = {"model": "mock", "max_tokens": 20, "messages": [{"role": "user", "content": said}], "prompt": said}
        body = json.dumps(asked | {"stream": streams}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: m\r\nauthorization: Bearer t\r\ncontent-length: {len(body)}\r\n\r\n"
        if rng.random() < _LEAVES:
            await self._leave(reader, writer, head.encode(), body)
            return LEFT
        writer.write(head.encode() + body)
        answer = await _read(reader, 0.002 if slow else 0)
        if answer.closes:
            self._hang_up()
        return _how_it_went(path, answer, streams=streams)

    async def _leave(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
    ) -> None:
        """Go at some point of the request or of its answer."""
        point = self._rng.choice(_POINTS)
        if point == "before":
            return
        cut = {"in the head": len(head) // 2, "in the body": len(head) + len(body) // 2}.get(point)
        writer.write((head + body)[:cut])
        if point == "soon":
            await asyncio.sleep(0.1 * self._rng.random())
        elif point == "within the answer":
            await reader.read(self._rng.randrange(1, 2000))
        else:
            await asyncio.sleep(0)


class Answer(Struct):
    """`whole`: its framing was kept to its end; `closes`: it is the last one on its connection."""

    status: int
    closes: bool
    body: bytes = b""
    whole: bool = True


async def _read(reader: asyncio.StreamReader, pause_s: float) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    answer = Answer(int(head[9:12]), b"connection: close" in head)
    if b"transfer-encoding: chunked" not in head:
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        try:
            answer.body = await reader.readexactly(length)
        except asyncio.IncompleteReadError as broken:
            answer.body, answer.whole = broken.partial, False
        return answer
    body = bytearray()
    try:
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if not size:
                break
            if pause_s:
                await asyncio.sleep(pause_s)
    except asyncio.IncompleteReadError:
        answer.whole = False
    answer.body = bytes(body)
    return answer


def _how_it_went(path: str, answer: Answer, *, streams: bool) -> str:
    if answer.status != 200:
        return str(answer.status) if answer.whole else SILENT
    if streams:
        if answer.whole and _ENDS.get(path, b"data: [DONE]") in answer.body:
            return ANSWERED
        return TOLD if b'"error"' in answer.body else SILENT
    if not answer.whole:
        return TOLD  # by its length
    try:
        json.loads(answer.body)
    except ValueError:
        return SILENT
    return ANSWERED
