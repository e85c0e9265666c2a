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
        raise InvalidInput(f"the body is not JSON: {error}") from None
    return decoded


def invalid(error: msgspec.ValidationError) -> InvalidInput:
    """Turn msgspec's text ("… - at `$.a.b`", "… unknown field `x`") into our error with the field's path."""
    text = str(error)
    path = _PATH.search(text)
    named = _NAMED.search(text)
    parts = [part for part in (path and path.group(1), named and named.group(1)) if part]
    return InvalidInput(_PATH.sub("", text), field=".".join(parts) or None)
