"""Payloads as structs: one type says what may be asked, to the check at submit and to who reads the schema."""

import re
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct

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


class Checked:
    """The half of a connector that a control plane needs, for one whose payloads are one struct."""

    payload: ClassVar[type[Struct]]

    @classmethod
    def check(cls, payload: Any) -> None:
        read_payload(payload, cls.payload)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        return json_schema(cls.payload)


def json_schema(*kinds: type) -> dict[str, Any]:
    """Describe one type, or any of several, in a schema that refers to nothing outside itself."""
    schemas, parts = msgspec.json.schema_components(kinds)
    whole = [_inlined(schema, parts, ()) for schema in schemas]
    return whole[0] if len(whole) == 1 else {"anyOf": whole}


def _inlined(schema: Any, parts: dict[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_inlined(entry, parts, within) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" not in schema:
        return {key: _inlined(value, parts, within) for key, value in schema.items()}
    name = schema["$ref"].rsplit("/", 1)[-1]
    return {} if name in within else _inlined(parts[name], parts, (*within, name))  # {}: one that contains itself
