"""JSON both ways; a message that does not fit is InvalidInput naming the field."""

import re
from typing import Any, TypeVar

import msgspec

from muster.errors import InvalidInput

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_NAMED = re.compile(r"field `([^`]+)`")
_BYTE = re.compile(r" \(byte (\d+)\)$")
_CUT = "Input data was truncated"


def encode(message: Any) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        decoded: T = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error, data) from None
    return decoded


def not_json(error: BaseException, body: bytes | None = None) -> InvalidInput:
    """Say why it is none and, where the body is known, in which line."""
    reason = str(error).removeprefix("JSON is malformed: ")
    place = _BYTE.search(reason)
    if body is not None and not body.strip():
        reason = "it is empty"
    elif reason == _CUT:
        reason = "it ends in the middle"
    elif body is not None and place is not None:
        before = body[: int(place[1])]
        *lines, line = before.split(b"\n")
        column = len(line.decode(errors="replace")) + 1
        reason = f"{reason[: place.start()]} in line {len(lines) + 1}, column {column}"
    return InvalidInput(f"the body is not valid JSON: {reason}")


def invalid(error: msgspec.ValidationError) -> InvalidInput:
    """Turn msgspec's text ("… - at `$.a.b`", "… unknown field `x`") into our error with the field's path."""
    text = str(error)
    path = _PATH.search(text)
    named = _NAMED.search(text)
    parts = [part for part in (path and path.group(1), named and named.group(1)) if part]
    return InvalidInput(_PATH.sub("", text), field=".".join(parts) or None)
