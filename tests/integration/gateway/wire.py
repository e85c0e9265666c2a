"""HTTP by hand: what a client library would hide must be seen."""

import asyncio
import json
import ssl
from typing import Any, Self

from msgspec import Struct

READ_TIMEOUT_S = 20.0


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection, bytes in and answers out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: tuple[str, int], trust: ssl.SSLContext | None = None) -> Self:
        return cls(*await asyncio.open_connection(*address, limit=2**24, ssl=trust))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    def abort(self) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(READ_TIMEOUT_S):
            status, headers = await self.head()
            return Answer(status, headers, b"" if head_only else await self._body(headers))

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(status_line.split()[1]), {name.lower(): value for name, value in pairs}

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while piece := await self.chunk():
            body += piece
        return body

    async def chunk(self) -> bytes:
        async with asyncio.timeout(READ_TIMEOUT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self.reader.read()


def post(path: str, content: object, *headers: str, version: str = "1.1") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = "".join(f"{header}\r\n" for header in headers)
    head = f"POST {path} HTTP/{version}\r\nhost: muster\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body


def post_chunked(path: str, content: object, *, pieces: int = 3) -> bytes:
    body = json.dumps(content).encode()
    step = max(1, len(body) // pieces)
    parts = [body[start : start + step] for start in range(0, len(body), step)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return (
        f"POST {path} HTTP/1.1\r\nhost: muster\r\ntransfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    )


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{method} {path} HTTP/{version}\r\nhost: muster\r\n{lines}\r\n".encode()


def chat(*, stream: bool = False, model: str = "smollm2-135m", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Tell."}], "stream": stream, **more}
