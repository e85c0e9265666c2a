"""An answer on its way to the caller: the head goes with the first byte, the framing is ours, streams go by lines."""

import asyncio
import socket
import struct

from muster.gateway.http.reply import render_head

_NO_LINGERING = struct.pack("ii", 1, 0)
_OK = 200
_HELD_BYTES_MAX = 65_536  # of a line that has not ended; a longer one goes on in pieces


class Delivery:
    """Nothing has been sent until `began`; until then another answer may still be prepared."""

    __slots__ = (
        "_by_line",
        "_chunked",
        "_held",
        "_http_1_0",
        "_length",
        "_lines",
        "_streamed",
        "_transport",
        "began",
        "bytes_sent",
        "keep_alive",
        "status",
    )

    def __init__(self, transport: asyncio.Transport, *, http_1_0: bool, keep_alive: bool) -> None:
        self._transport = transport
        self._http_1_0 = http_1_0
        self.keep_alive = keep_alive
        self.began = False
        self.bytes_sent = 0
        self.status = 0
        self._lines = self._held = b""
        self._length: int | None = None
        self._chunked = self._streamed = self._by_line = False

    def prepare(
        self,
        status: int,
        lines: bytes,
        *,
        length: int | None,
        streamed: bool,
        by_line: bool,
    ) -> None:
        """`by_line` holds back the piece of a line that is not whole, so that an error can follow at any time."""
        self.status = status
        self._lines = lines
        self._length = length
        self._held = b""
        self._streamed = streamed
        self._by_line = by_line

    def go_on(self, *, by_line: bool) -> None:
        """Let the answer follow on a head that has gone already, to a caller who had to be kept waiting."""
        self._by_line = by_line
        self._held = b""

    def follow_on(self) -> None:
        """Let a stream follow on one whose head and beginning went to the caller on another way."""
        self.began = True
        self.status = _OK
        self._streamed = True

    def send(self, data: bytes) -> None:
        if self._by_line and (self._held or not data.endswith(b"\n")):
            data = self._whole_lines(data)
        if not data:
            return
        head = b"" if self.began else self._begin()
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (head, len(data), data)
        elif head:
            data = head + data
        self.bytes_sent += len(data)
        self._transport.write(data)

    def end(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        if not self.began:
            self.began = True
            head = render_head(self.status, self._lines, length=len(data), chunked=False, keep_alive=self.keep_alive)
            data = head + data
        elif self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if data:
            self.bytes_sent += len(data)
            self._transport.write(data)

    def break_off(self, frame: bytes) -> None:
        """End a stream with an error, any other body so that its reader sees that the rest is missing."""
        self.keep_alive = False
        if self._streamed and self._length is None:
            self._held = b""
            self.end(frame)
        elif self._http_1_0 and self._length is None:
            _reset(self._transport)

    def _begin(self) -> bytes:
        self.began = True
        self._chunked = self._length is None and not self._http_1_0
        if self._length is None and self._http_1_0:
            self.keep_alive = False  # the end of the body is the end of the connection
        return render_head(
            self.status, self._lines, length=self._length, chunked=self._chunked, keep_alive=self.keep_alive
        )

    def _whole_lines(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\n"):
            return data
        end = data.rfind(b"\n") + 1
        if len(data) - end > _HELD_BYTES_MAX:
            return data
        self._held = data[end:]
        return data[:end]


def _reset(transport: asyncio.Transport) -> None:
    """Break the connection rather than close it, where its close would be the regular end of a body."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    transport.abort()
