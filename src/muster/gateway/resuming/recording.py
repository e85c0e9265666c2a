"""An answer that comes whether or not its caller is there, and is shown to its readers as far as it is kept.

Nothing goes to anybody before the store has it: so whatever a reader has of an answer, its rest can be given. An answer
that is not kept (an error, one that became too long, one that the store has no room for) passes through a window, as
fast as its readers read, and ends with the last of them.
"""

import asyncio
from typing import Any, Protocol

from muster.domain.service import Dialect
from muster.domain.stream import StreamEnd, StreamPart
from muster.errors import MusterError, UpstreamFailed
from muster.gateway.dialects.shape import error_frame
from muster.gateway.figures.decisions import Keeping
from muster.gateway.relay import Running
from muster.gateway.resuming.terms import Head, Terms, encode_opening, lost, opening_of, take_head

_FIRST_ERROR = 400
_READ_BYTES = 65_536
_PART_BYTES = 262_144
_WINDOW_BYTES = 1_048_576


class Reader(Protocol):
    """Who is shown an answer; `offset` is how much of its body it has."""

    offset: int


class Clerk(Protocol):
    def changed(self, recording: "Recording") -> None: ...
    def over(self, recording: "Recording") -> None: ...


class Tape(asyncio.Transport):
    """The connection of a caller who is not there, as far as one who answers needs it."""

    def __init__(self, recording: "Recording") -> None:
        super().__init__()
        self._recording = recording

    def write(self, data: Any) -> None:
        self._recording.take(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._recording.cut()


class Recording:
    """To the exchange it is its caller. Each reader is a Running of its own."""

    def __init__(self, stream_id: str, terms: Terms, clerk: Clerk, *, bytes_max: int, now_s: float) -> None:
        self.stream_id = stream_id
        self.terms = terms
        self.transport: asyncio.Transport = Tape(self)
        self.exchange: Running | None = None
        self.readers: set[Reader] = set()
        self.attended_s = now_s  # when somebody last read it
        self.written_s = now_s
        self.head: Head | None = None
        self.keeping = Keeping(stream_id=stream_id, keep_s=terms.keep_s)
        self.opened = False  # in the store
        self.shown = 0
        self.end: StreamEnd | None = None
        self._clerk = clerk
        self._bytes_max = bytes_max
        self._raw = b""  # of the head, while it is not whole
        self._body = bytearray()
        self._base = 0  # how much of the body has been let go
        self._written = 0
        self._ending: StreamEnd | None = None
        self._read_ms = 0
        self._paused = False
        self._problem: MusterError | None = None
        self._grown = asyncio.Event()

    def take_up(self, head: Head, body: bytes) -> None:
        """Go on with what another gateway has kept."""
        self.head = head
        self.opened = self.keeping.taken_over = True
        self._body += body
        self._written = self.shown = len(body)

    # --- the answer, as a caller gets it -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._base + len(self._body)

    def take(self, data: bytes) -> None:
        if self.head is None:
            self._raw += data
            found = take_head(self._raw)
            if found is None:
                return
            self._raw = b""
            self.head, data = found
            self.keeping.kept = self.head.status < _FIRST_ERROR
        self._body += data
        if self.is_kept and self.size > self._bytes_max:
            self.keeping.kept = False  # what is in the store is dropped
        self._go_on()

    def cut(self) -> None:
        """Take note that the rest of the body is missing."""
        self.break_off(UpstreamFailed("the answer broke off"))

    def answered(self, *, keep_alive: bool) -> None:  # noqa: ARG002 - which matters to connections
        if self._ending is None:
            missing = self.head is not None and self.head.length is not None and self.size < self.head.length
            self._finish(StreamEnd.CUT if missing else StreamEnd.WHOLE)

    def _finish(self, end: StreamEnd) -> None:
        self._ending = end
        self._go_on()

    def break_off(self, error: MusterError) -> None:
        """End with an error, within the body where there is a way to."""
        if self.head is not None and self.head.streamed:
            self._body += error_frame(self.terms.dialect, error)
            self._finish(StreamEnd.WHOLE)
        else:
            self._finish(StreamEnd.CUT)

    def _go_on(self) -> None:
        if self.is_kept or self.opened:
            self._clerk.changed(self)
        if not self.is_kept:
            self._pass()

    # --- without the store -------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        self.shown = self.size
        self.end = self._ending
        if self.end is not None:
            self._clerk.over(self)
        elif not self.readers:
            asyncio.get_running_loop().call_soon(self._cancel_unread)  # not from within the exchange's own write
        elif len(self._body) > _WINDOW_BYTES and not self._paused and self.exchange is not None:
            self._paused = True
            self.exchange.pause()
        self._tell()

    def advanced(self) -> None:
        """Let go of what all have that may read it."""
        if self.is_kept or not self.readers:
            return
        read = min(reader.offset for reader in self.readers) - self._base
        del self._body[:read]
        self._base += read
        if self._paused and len(self._body) < _WINDOW_BYTES // 2 and self.exchange is not None:
            self._paused = False
            self.exchange.resume()

    # --- with the store ----------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether there is anything that the store has not got."""
        if self.head is None or self._problem is not None:
            return False
        if not self.is_kept:
            return self.opened
        return not self.opened or self._written < self.size or (self._ending is not None and self.end is None)

    def part(self, runner: str, lease_s: float) -> StreamPart | None:
        """Return what is to be written next, be it only that we are still there."""
        if self.head is None or self._problem is not None or not (self.is_kept or self.opened):
            return None
        start = self._written - self._base
        data = bytes(self._body[start : start + _PART_BYTES]) if self.is_kept else b""
        end = self._ending if self._written + len(data) == self.size else None
        if not self.is_kept:
            end = StreamEnd.DROPPED
        return StreamPart(
            stream_id=self.stream_id,
            runner=runner,
            offset=self._written,
            # What still comes is not over, however short the wish.
            keep_s=self.terms.keep_s if end is not None else self.terms.keep_s + lease_s,
            lease_s=lease_s,
            data=data,
            opening=b"" if self.opened else encode_opening(opening_of(self.terms, self.head)),
            end=end,
        )

    def written(self, part: StreamPart, read_ms: int | None, now_s: float) -> None:
        """Show what the store has taken. None: it has not, as it is full or somebody else goes on with it."""
        self.written_s = now_s
        if part.end is StreamEnd.DROPPED:
            self.opened = False
            return
        if read_ms is None and part.opening:
            self.keeping.kept = False
            self._pass()
            return
        if read_ms is None:
            self.fail(lost(self.stream_id))
            return
        if read_ms != self._read_ms:
            self._read_ms, self.attended_s = read_ms, now_s
        self.opened = True
        self._written = part.offset + len(part.data)
        if self.is_kept:
            self.shown, self.end = self._written, part.end
            self._tell()
            if self.end is not None:
                self._clerk.over(self)

    def pass_through(self) -> None:
        """Do without the store, for an answer that it does not keep."""
        self.keeping.kept = False
        self._pass()

    # --- its readers -------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> bytes:
        """Header lines that say how it is taken up again."""
        if not self.is_kept:
            return b"x-muster-resumable: no\r\n"
        return b"x-muster-stream: %b\r\nx-muster-resumable: %g\r\n" % (
            self.stream_id.encode(),
            self.terms.keep_s,
        )

    @property
    def is_kept(self) -> bool:
        return self.keeping.kept

    @property
    def dialect(self) -> Dialect:
        return self.terms.dialect

    def length_from(self, offset: int) -> int | None:
        """Return how long the rest is, if that is known."""
        if self.end is not None:
            return self.shown - offset
        return None if self.head is None or self.head.length is None else self.head.length - offset

    def join(self, reader: Reader) -> None:
        self.readers.add(reader)

    def leave(self, reader: Reader, now_s: float) -> None:
        """End with the last reader, if that one cannot come back."""
        self.readers.discard(reader)
        self.attended_s = now_s
        if not self.readers and self.end is None and not (self.is_kept and self.shown):
            self.cancel()

    async def read(self, offset: int) -> tuple[bytes, StreamEnd | None]:
        """Wait for what follows on the offset; return how the answer ended with the last of it."""
        while True:
            if self._problem is not None:
                raise self._problem
            if offset < self.shown or self.end is not None:
                start = offset - self._base
                data = bytes(self._body[start : min(start + _READ_BYTES, self.shown - self._base)])
                return data, self.end if offset + len(data) == self.shown else None
            await self._grown.wait()

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    # --- its end -----------------------------------------------------------------------------------------------------

    def fail(self, error: MusterError) -> None:
        """Tell all readers that nothing more will come."""
        self._problem = error
        self.cancel()
        self._tell()

    def _cancel_unread(self) -> None:
        if not self.readers and self.end is None:
            self.cancel()

    def cancel(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        self._clerk.over(self)
