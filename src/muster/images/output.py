"""Which pictures a job of ComfyUI has kept."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from muster.domain.file import FileRef

_KIND = "image/"


class _Result(Struct):
    outputs: dict[str, dict[str, Any]] = {}


_result = msgspec.json.Decoder(_Result)


def pictures_of(result: Raw) -> list[FileRef]:
    """Return the pictures of a result in their order; none where it is no result of a graph."""
    try:
        outputs = _result.decode(result).outputs
    except msgspec.ValidationError:
        return []
    found = [item for node in outputs.values() for items in node.values() for item in _items(items)]
    return [file for item in found if (file := _file(item)) is not None and file.type.startswith(_KIND)]


def _items(items: Any) -> list[Any]:
    return items if isinstance(items, list) else []


def _file(item: Any) -> FileRef | None:
    try:
        return msgspec.convert(item, FileRef)
    except msgspec.ValidationError:
        return None
