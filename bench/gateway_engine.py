"""An engine that answers as chance has it: what the soak kills, freezes and asks.

python -m bench.gateway_engine PORT SEED ; it answers all well from SIGUSR1 on.
"""

import asyncio
import contextlib
import json
import random
import signal
import sys

import uvloop

_TOKENS = 12
_PACE_S = 0.02  # at most, between two tokens
_LONG = b"a long answer"  # who says so gets pieces that fill buffers
_LONG_CHARS = 20_000
_MESSAGES = b"/v1/messages"
_MOODS = (*("well",) * 95, "refuse", "reset", "cut", "stall", "hang")


class Moody:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.moods = _MOODS

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Return whether the connection can be used again."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int((head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) or 0)
        body = await reader.readexactly(length)
        path = head.split(b" ", 2)[1]
        mood = self._rng.choice(self.moods)
        if mood == "reset":
            return False
        if mood == "hang":
            await reader.read()
            return False
        streams = json.loads(body or b"{}").get("stream", True)
        if mood == "refuse" or not streams:
            _write_whole(writer, 503 if mood == "refuse" else 200, path)
            return True
        return await self._stream(reader, writer, path, mood, "x" * (_LONG_CHARS if _LONG in body else 4))

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes, mood: str, said: str
    ) -> bool:
        openai = path.startswith(b"/v1")
        kind = b"text/event-stream" if openai else b"application/x-ndjson"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
        breaks_at = self._rng.randrange(_TOKENS) if mood in {"cut", "stall"} else None
        pace_s = self._rng.uniform(0, _PACE_S)
        for number in range(_TOKENS):
            if number == breaks_at:
                if mood == "stall":
                    await reader.read()
                return False
            _write_chunk(writer, _piece(path, said, last=number == _TOKENS - 1))
            await writer.drain()
            await asyncio.sleep(pace_s)
        if openai and path != _MESSAGES:
            _write_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return True


def _piece(path: bytes, said: str, *, last: bool) -> bytes:
    if path == _MESSAGES:
        kind = b"message_stop" if last else b"content_block_delta"
        told = {"type": kind.decode()} | ({} if last else {"index": 0, "delta": {"type": "text_delta", "text": said}})
        return b"event: %b\ndata: %b\n\n" % (kind, _json(told))
    if not path.startswith(b"/v1"):
        return _json({"message": {"content": said}, "response": said, "done": last}) + b"\n"
    told = {"delta": {"content": said}} if b"chat" in path else {"text": said}
    return b"data: " + _json({"choices": [told | {"finish_reason": "stop" if last else None}]}) + b"\n\n"


def _write_whole(writer: asyncio.StreamWriter, status: int, path: bytes) -> None:
    told = {"message": {"content": "x"}} if b"chat" in path else {"text": "x"}
    openai = path.startswith(b"/v1")
    body = _json({"choices": [told | {"finish_reason": "stop"}]} if openai else {"message": {}, "done": True})
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _json(told: object) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode()


async def main(port: int, seed: int) -> None:
    moody = Moody(random.Random(seed))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: setattr(moody, "moods", ("well",)))
    server = await asyncio.start_server(moody, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
