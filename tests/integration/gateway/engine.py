"""A model server that does what a test tells it: llama.cpp's OpenAI dialect, Ollama's own, and every way to fail."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import httptools

TOKENS = ("Once", " upon", " a", " time", ".")
_STATUS_TEXT = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Unavailable"}


class Asked:
    """One request as it reached the engine, and the means to answer it."""

    def __init__(self, connection: "EngineConnection") -> None:
        self._connection = connection
        self.method = ""
        self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.body_bytes = 0

    @property
    def json(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.body))

    def head(self, status: int = 200, content_type: str = "application/json", *, length: int | None = None) -> None:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        self.raw(
            f"HTTP/1.1 {status} {_STATUS_TEXT.get(status, 'Other')}\r\nserver: engine\r\nkeep-alive: timeout=5\r\n"
            f"content-type: {content_type}\r\n{framing}\r\n\r\n".encode()
        )

    def raw(self, data: bytes) -> None:
        self._connection.transport.write(data)

    def chunk(self, data: bytes) -> None:
        self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    def last_chunk(self) -> None:
        self.raw(b"0\r\n\r\n")

    def event(self, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
        self.chunk(f"data: {text}\n\n".encode())

    def line(self, content: object) -> None:
        self.chunk(json.dumps(content).encode() + b"\n")

    def reply(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.head(status, length=len(body))
        self.raw(body)

    def reset(self) -> None:
        self._connection.transport.abort()

    def close(self) -> None:
        self._connection.transport.close()

    async def written(self) -> None:
        await self._connection.writable.wait()


Behaviour = Callable[[Asked], Awaitable[None]]


class Engine:
    """Answers with `behaviour`; requests are kept, and streams counted while they are open."""

    def __init__(self, behaviour: "Behaviour | None" = None) -> None:
        self.behaviour = behaviour or llama
        self.requests: list[Asked] = []
        self.connections: set[EngineConnection] = set()
        self.connections_ever = 0
        self.answering = 0
        self.counts_bodies_only = False  # does not keep them
        self.answers_heads = False  # before the body has come
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: EngineConnection(self), "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Be gone like a killed process: connections break, and none is accepted any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.transport.abort()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"


class EngineConnection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._asked = Asked(self)
        self._task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._engine.connections.add(self)
        self._engine.connections_ever += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._asked = Asked(self)

    def on_url(self, url: bytes) -> None:
        self._asked.path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._asked.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._asked.body_bytes += len(body)
        if not self._engine.counts_bodies_only:
            self._asked.body += body

    def on_headers_complete(self) -> None:
        if self._engine.answers_heads:
            self._begin()

    def on_message_complete(self) -> None:
        if not self._engine.answers_heads:
            self._begin()

    def _begin(self) -> None:
        self._asked.method = self._parser.get_method().decode()
        self._engine.requests.append(self._asked)
        self._task = asyncio.get_running_loop().create_task(self._answer(self._asked))

    async def _answer(self, asked: Asked) -> None:
        self._engine.answering += 1
        try:
            await self._engine.behaviour(asked)
        finally:
            self._engine.answering -= 1


# --- llama.cpp's OpenAI dialect --------------------------------------------------------------------------------------


async def llama(asked: Asked) -> None:
    if asked.path == "/v1/embeddings":
        texts = asked.json["input"] if isinstance(asked.json["input"], list) else [asked.json["input"]]
        data = [{"object": "embedding", "index": i, "embedding": [0.5, -0.25, i]} for i in range(len(texts))]
        asked.reply({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    elif asked.json.get("stream"):
        asked.head(content_type="text/event-stream")
        for content in stream_of(asked):
            asked.event(content)
        asked.last_chunk()
    else:
        asked.reply(whole(asked))


def stream_of(asked: Asked) -> list[object]:
    """Return the role first, then the tokens, the reason of the end, the counts, and [DONE], as llama.cpp does."""
    plain = asked.path == "/v1/completions"
    pieces: list[object] = [] if plain else [_chunk(asked, {"delta": {"role": "assistant", "content": None}})]
    pieces += [_chunk(asked, {"text": t} if plain else {"delta": {"content": t}}) for t in TOKENS]
    pieces.append(_chunk(asked, {"text": ""} if plain else {"delta": {}}, "stop"))
    if asked.json.get("stream_options", {}).get("include_usage"):
        counts = {"prompt_tokens": 7, "completion_tokens": len(TOKENS), "total_tokens": 7 + len(TOKENS)}
        pieces.append({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts})
    return [*pieces, "[DONE]"]


def _chunk(asked: Asked, said: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": asked.json.get("model"),
        "choices": [{"index": 0, "finish_reason": finish_reason} | said],
    }


def whole(asked: Asked) -> dict[str, Any]:
    text = "".join(TOKENS)
    said = {"text": text} if asked.path == "/v1/completions" else {"message": {"role": "assistant", "content": text}}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.json.get("model"),
        "choices": [{"index": 0, "finish_reason": "stop"} | said],
        "usage": {"prompt_tokens": 7, "completion_tokens": len(TOKENS), "total_tokens": 7 + len(TOKENS)},
        "timings": {"prompt_ms": 12.5, "predicted_ms": 50.0},
    }


# --- Ollama's own dialect --------------------------------------------------------------------------------------------


async def ollama(asked: Asked) -> None:
    if not asked.path.startswith("/api/"):
        await llama(asked)
    elif asked.json.get("stream", True):
        asked.head(content_type="application/x-ndjson")
        for token in TOKENS:
            message = {"role": "assistant", "content": token}
            asked.line({"model": asked.json["model"], "message": message, "done": False})
        asked.line({"model": asked.json["model"], "message": {"role": "assistant", "content": ""}, "done": True})
        asked.last_chunk()
    else:
        message = {"role": "assistant", "content": "".join(TOKENS)}
        asked.reply({"model": asked.json["model"], "message": message, "done": True, "done_reason": "stop"})


# --- ways to fail ----------------------------------------------------------------------------------------------------


async def hang(_: Asked) -> None:
    await asyncio.Event().wait()


async def refuse(asked: Asked) -> None:
    asked.reply({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)


async def reset(asked: Asked) -> None:
    asked.reset()


async def head_then_reset(asked: Asked) -> None:
    asked.head(content_type="text/event-stream")
    await asked.written()
    asked.close()


def _first_tokens(asked: Asked, tokens: int) -> None:
    if asked.path.startswith("/api/"):
        asked.head(content_type="application/x-ndjson")
        for token in TOKENS[:tokens]:
            asked.line({"model": "m", "message": {"role": "assistant", "content": token}, "done": False})
    else:
        asked.head(content_type="text/event-stream")
        for content in stream_of(asked)[: tokens + 1]:
            asked.event(content)


def cut_after(tokens: int) -> Behaviour:
    async def cut(asked: Asked) -> None:
        _first_tokens(asked, tokens)
        asked.close()

    return cut


def cut_within_a_line(tokens: int) -> Behaviour:
    async def cut(asked: Asked) -> None:
        _first_tokens(asked, tokens)
        asked.raw(b'40\r\ndata: {"id":"c1","obj')
        asked.close()

    return cut


def stall_after(tokens: int) -> Behaviour:
    async def stall(asked: Asked) -> None:
        _first_tokens(asked, tokens)
        await asyncio.Event().wait()

    return stall
