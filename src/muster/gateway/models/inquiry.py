"""A question to an engine, asked from a task that waits for the answer: for errands, which are few and may be long."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

import msgspec

from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.gateway.http.reply import JSON
from muster.gateway.http.upstream import AnswerHead, Endpoint, UpstreamConnection

_HELD_PIECES_MAX = 32  # of an answer that nobody has read yet; then the engine is made to wait
_LINE_BYTES_MAX = 65_536


class Inquiry:
    """One question and its answer. It is the Asker of its connection; leaving the context lets go of it."""

    def __init__(self, endpoint: Endpoint, worker: str, quiet_s: float) -> None:
        """`quiet_s` is the longest silence that is waited through."""
        self._endpoint = endpoint
        self._worker = worker
        self._quiet_s = quiet_s
        self._connection: UpstreamConnection | None = None
        self._head: AnswerHead | None = None
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._lost: str | None = None
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self.on_answer: Callable[[], None] | None = None  # hears that it came, or will not

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not self._ended:
            connection.drop()

    async def begin(self, method: str, path: str, lines: bytes) -> None:
        """Send a head whose body follows; raise UpstreamFailed when there is nobody to send it to."""
        endpoint = self._endpoint
        try:
            connection = await endpoint.connect()
        except (OSError, UnicodeError) as error:
            raise UpstreamFailed(f"{self._worker} cannot be reached: {str(error) or 'too slow'}") from error
        self._connection = connection
        connection.watch_writing(self._writable)
        head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b\r\n"
        connection.ask(self, head % (method.encode(), endpoint.path, path.encode(), endpoint.host_header, lines))

    async def send(self, data: bytes) -> None:
        """Do nothing when the engine has answered already: it wants no more."""
        if self._connection is not None and self._head is None and self._lost is None:
            self._connection.transport.write(data)
            await self._waited(self._writable, "take what it is sent")

    async def ask(self, method: str, path: str, body: bytes) -> AnswerHead:
        lines = b"content-type: %b\r\ncontent-length: %d\r\n" % (JSON, len(body))
        await self.begin(method, path, lines)
        await self.send(body)
        return await self.answer(head_only=method == "HEAD")

    async def answer(self, *, head_only: bool = False) -> AnswerHead:
        await self._until(lambda: self._head is not None)
        if self._head is None:
            raise UpstreamFailed(f"{self._worker} {self._lost or 'gave no answer'}")
        if head_only and self._connection is not None:
            self._connection.drop()
            self._connection = None
        return self._head

    async def read(self, bytes_max: int) -> bytes:
        parts, size = [], 0
        async for piece in self._all():
            size += len(piece)
            if size > bytes_max:
                raise UpstreamFailed(f"{self._worker} answered more than {bytes_max} bytes")
            parts.append(piece)
        return b"".join(parts)

    async def lines(self) -> AsyncIterator[dict[str, object]]:
        """Yield one JSON object after another."""
        held = b""
        async for piece in self._all():
            *whole, held = (held + piece).split(b"\n")
            if len(held) > _LINE_BYTES_MAX:
                raise UpstreamFailed(f"{self._worker} sent a line without end")
            for line in whole:
                if line.strip():
                    yield self._object(line)
        if held.strip():
            yield self._object(held)

    def _object(self, line: bytes) -> dict[str, object]:
        try:
            return msgspec.json.decode(line, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamFailed(f"{self._worker} sent a line that is no JSON object") from error

    async def _all(self) -> AsyncIterator[bytes]:
        while True:
            await self._until(lambda: bool(self._pieces))
            if not self._pieces:
                break
            piece = self._pieces.popleft()
            if len(self._pieces) < _HELD_PIECES_MAX and self._connection is not None and not self._ended:
                self._connection.resume()
            yield piece
        if self._lost is not None:
            raise UpstreamFailed(f"{self._worker} {self._lost}")

    async def _until(self, come: Callable[[], bool]) -> None:
        while not come() and not self._ended and self._lost is None:
            self._news.clear()
            await self._waited(self._news, "say anything")

    async def _waited(self, event: asyncio.Event, what: str) -> None:
        try:
            async with asyncio.timeout(self._quiet_s):
                await event.wait()
        except TimeoutError:
            raise UpstreamTimeout(f"{self._worker} did not {what} for {self._quiet_s:g} s") from None

    # --- as Asker ----------------------------------------------------------------------------------------------------

    def answer_began(self, head: AnswerHead) -> None:
        self._head = head
        self._answered()

    def answer_continued(self, data: bytes) -> None:
        self._pieces.append(data)
        self._news.set()
        if len(self._pieces) >= _HELD_PIECES_MAX and self._connection is not None:
            self._connection.pause()

    def answer_ended(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
        self._ended = True
        self._news.set()

    def answer_lost(self, reason: str) -> None:
        self._lost = reason
        self._answered()

    def _answered(self) -> None:
        self._writable.set()
        self._news.set()
        if self.on_answer is not None:
            self.on_answer()
