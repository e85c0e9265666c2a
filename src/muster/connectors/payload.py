"""Payloads checked against a struct, with the field at fault in the error."""

import re
from typing import Any, TypeVar

import msgspec

from muster.errors import InvalidInput

T = TypeVar("T")

_AT = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_NAMED_FIELD = re.compile(r"field `(?P<name>[^`]*)`")


def read_payload(payload: Any, kind: type[T]) -> T:
    """Return `payload` as `kind`; no payload counts as an empty object."""
    try:
        return msgspec.convert({} if payload is None else payload, kind)
    except msgspec.ValidationError as error:
        match = _AT.fullmatch(str(error))
        problem, path = (match["problem"], match["path"] or "") if match else (str(error), "")
        named = _NAMED_FIELD.search(problem)
        field = f"payload{path}" + (f".{named['name']}" if named else "")
        raise InvalidInput(f"{field}: {problem}", field=field) from None
