"""A service that answers in events: lines of JSON, or server-sent events with JSON in their data."""

from typing import Any

import msgspec

from muster.connectors import json_path
from muster.connectors.pieces import DONE
from muster.connectors.streamed import so_far
from muster.connectors.web_service.config import Streaming, WebRequest
from muster.connectors.web_service.exchange import Exchange
from muster.connectors.web_service.poll import fraction_of
from muster.domain.job import Progress
from muster.errors import PayloadTooLarge, UpstreamFailed
from muster.ports import ReportProgress

_LINE_BYTES_MAX = 4_194_304
_CHARS_MAX = 500
_DATA = b"data:"
_FIELDS = (b":", b"event:", b"id:", b"retry:")  # of server-sent events, besides the data


async def follow(exchange: Exchange, path: str, method: str, asked: WebRequest, report: ReportProgress) -> Any:
    """Return what the last event brought, or the whole text."""
    streaming, received = exchange.config.stream, 0
    last, text, rest = None, "", b""
    async with exchange.asking(path, method, asked) as response:
        async for data in response.content.iter_any():
            received += len(data)
            if received > exchange.config.answer_bytes_max:
                raise PayloadTooLarge(f"{exchange.config.name} answered more bytes than answer_bytes_max allows")
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_BYTES_MAX:
                raise PayloadTooLarge(f"{exchange.config.name} sent a line of more than {_LINE_BYTES_MAX} bytes")
            for line in lines:
                if (event := _event(line)) is not None:
                    last = event
                    text = _told(event, streaming, text, report)
    if (event := _event(rest)) is not None:
        last = event
        text = _told(event, streaming, text, report)
    if last is None:
        raise UpstreamFailed(f"{exchange.config.name} ended its answer without any event")
    return {"text": text, "last": last} if streaming.text else json_path.find(last, streaming.result)


def _event(line: bytes) -> Any:
    line = line.strip()
    if not line or line.startswith(_FIELDS):
        return None
    value = line.removeprefix(_DATA).strip()
    if value == DONE:
        return None
    try:
        event = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpstreamFailed(f"an event is not JSON: {value[:_CHARS_MAX].decode(errors='replace')}") from None
    if isinstance(event, dict) and event.get("error"):
        raise UpstreamFailed(f"the service sent an error: {str(event['error'])[:_CHARS_MAX]}")
    return event


def _told(event: Any, streaming: Streaming, text: str, report: ReportProgress) -> str:
    """Report the event and return the text with what it added."""
    fraction = fraction_of(None if streaming.progress is None else json_path.find(event, streaming.progress))
    message = None if streaming.message is None else json_path.find(event, streaming.message)
    message = None if message is None else str(message)[:_CHARS_MAX]
    if streaming.text is None:
        report(Progress(fraction=fraction, message=message))
        return text
    added = json_path.find(event, streaming.text)
    if isinstance(added, str):
        text += added
    report(so_far(text, fraction=fraction, message=message or f"{len(text)} characters"))
    return text
