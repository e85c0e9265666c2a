"""A stream that breaks off anywhere never looks whole: each place of each dialect, with the framing whole and not."""

from typing import Any

import pytest
from msgspec.structs import replace

from muster.domain.service import Dialect
from muster.gateway import GatewayLimits
from tests.conformance.gateway_faults.said import (
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    OPENAI_CHAT,
    OPENAI_COMPLETION,
    Said,
    question,
    said,
)
from tests.integration.gateway.door import opened
from tests.integration.gateway.engine import Asked, Engine, hang
from tests.integration.gateway.fleet import BOTH, OPENAI_ONLY, FleetTwin, worker

LIMITS = GatewayLimits(quarantine_s=3600.0, quarantine_max_s=3600.0)
SSE, NDJSON = "text/event-stream", "application/x-ndjson"
TEXT = "Hé!"


def _events(*choices: str) -> bytes:
    return b"".join(f'data: {{"choices":[{choice}]}}\n\n'.encode() for choice in choices) + b"data: [DONE]\n\n"


STREAMS = {
    OPENAI_CHAT: _events(
        '{"delta":{"content":"Hé"}}', '{"delta":{"content":"!"}}', '{"delta":{},"finish_reason":"stop"}'
    ),
    OPENAI_COMPLETION: _events('{"text":"Hé"}', '{"text":"!"}', '{"text":"","finish_reason":"stop"}'),
    OLLAMA_CHAT: (
        '{"message":{"content":"Hé"},"done":false}\n{"message":{"content":"!"},"done":false}\n'
        '{"message":{"content":""},"done":true,"done_reason":"stop"}\n'
    ).encode(),
    OLLAMA_GENERATE: (
        '{"response":"Hé","done":false}\n{"response":"!","done":false}\n{"response":"","done":true}\n'
    ).encode(),
}
WAYS = [
    (OPENAI_CHAT, OPENAI_ONLY),
    (OPENAI_COMPLETION, OPENAI_ONLY),
    (OLLAMA_CHAT, BOTH),
    (OLLAMA_GENERATE, BOTH),
    (OLLAMA_CHAT, OPENAI_ONLY),
]


class Cutting:
    """An engine's behaviour: its answer breaks off after so many bytes, in one of four ways."""

    def __init__(self) -> None:
        self.after = 0
        self.way = ""

    async def __call__(self, asked: Asked) -> None:
        stream = STREAMS[asked.path]
        part = stream[: self.after]
        content_type = SSE if asked.path.startswith("/v1") else NDJSON
        if self.way == "unframed":
            asked.raw(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n".encode() + part)
        else:
            asked.head(content_type=content_type)
            if part:
                asked.chunk(part)
        if self.way == "framed":
            asked.last_chunk()
        elif self.way == "silent":
            await hang(asked)
        else:
            await asked.written()
            asked.close()


def check(heard: Said, *, whole: bool, told: bool, at: Any) -> None:
    assert TEXT.startswith(heard.text), at
    assert heard.done is not (heard.error is not None), f"{at}: either it is done, or an error is told"
    if heard.done:
        assert whole, f"{at}: it looks whole, and is not"
        assert heard.text == TEXT, at
    if told:
        assert heard.done, f"{at}: it is whole: {heard.error}"


@pytest.mark.parametrize("way", ["framed", "unframed", "torn"])
@pytest.mark.parametrize(("path", "dialects"), WAYS, ids=lambda value: value if isinstance(value, str) else len(value))
async def test_no_cut_goes_unnoticed(path: str, dialects: tuple[Dialect, ...], way: str):
    """Framed: the engine ends its answer as if all was there. Unframed: its end is that of the connection."""
    cutting = Cutting()
    cutting.way = way
    asked_path = path if path.startswith("/v1") or Dialect.OLLAMA in dialects else OPENAI_CHAT
    stream = STREAMS[asked_path]
    translated = asked_path != path
    # The reason of the end is all that a translated answer needs; an error that follows may still be told.
    said_by = stream.index(b'"stop"}]}') + len(b'"stop"}]}') if translated else len(stream.rstrip())
    async with (
        Engine(cutting) as engine,
        opened(FleetTwin(worker(engine.url, dialects=dialects)), limits=LIMITS) as door,
    ):
        for cut in range(len(stream) + 1):
            cutting.after = cut
            async with await door.wire() as wire:
                wire.send(question(path))
                heard = said(await wire.answer())
            told = cut == len(stream) and way != "torn" if translated else cut >= said_by
            check(heard, whole=cut >= said_by, told=told, at=(cut, stream[:cut][-20:]))
        assert door.reserved == {}


@pytest.mark.parametrize(
    ("path", "dialects"), WAYS[:4], ids=lambda value: value if isinstance(value, str) else len(value)
)
async def test_silence_after_the_last_word_is_no_error(path: str, dialects: tuple[Dialect, ...]):
    """An engine may be frozen, or its network gone, between the last line and the end of the framing."""
    cutting = Cutting()
    cutting.way, cutting.after = "silent", len(STREAMS[path])
    limits = replace(LIMITS, idle_timeout_s=0.1, idle_floor_s=0.1)
    async with (
        Engine(cutting) as engine,
        opened(FleetTwin(worker(engine.url, dialects=dialects)), limits=limits) as door,
        await door.wire() as wire,
    ):
        wire.send(question(path))
        check(said(await wire.answer()), whole=True, told=True, at=path)
        cutting.way = "framed"
        wire.send(question(path))  # the connection is still there
        check(said(await wire.answer()), whole=True, told=True, at=path)
        assert door.reserved == {}
