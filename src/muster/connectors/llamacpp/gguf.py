"""The facts at the head of a GGUF file, which decide how it is served."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"

_STRING = 8
_ARRAY = 9
# By the numbers of the format's value types; 7 is a bool of one byte.
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_KEYS_MAX = 4096
_TEXT_BYTES_MAX = 16_777_216


class NotGguf(ValueError):
    """The file is none, or is cut off within its head."""


def read_facts(path: Path) -> dict[str, Any]:
    """Return the key-value pairs, without those that are lists (vocabularies). OSError when it cannot be read."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise NotGguf(f"{path} is not a GGUF file")
        try:
            _, _, count = struct.unpack("<IQQ", _take(file, 20))
            if count > _KEYS_MAX:
                raise NotGguf(f"{path} claims {count} facts about its model")
            facts = {_text(file): _value(file, _scalar(file, "<I")) for _ in range(count)}
        except (struct.error, UnicodeDecodeError, KeyError):
            raise NotGguf(f"{path} is not a whole GGUF file") from None
    return {key: value for key, value in facts.items() if value is not None}


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    item_kind, count = _scalar(file, "<I"), _scalar(file, "<Q")
    if item_kind in _SCALARS:
        file.seek(struct.calcsize(_SCALARS[item_kind]) * count, 1)
        return None
    if item_kind != _STRING:
        raise KeyError(item_kind)  # lists of lists are allowed by the format, and used by no model
    for _ in range(count):
        file.seek(_scalar(file, "<Q"), 1)
    return None


def _text(file: BinaryIO) -> str:
    length = _scalar(file, "<Q")
    if length > _TEXT_BYTES_MAX:
        raise struct.error
    return _take(file, length).decode()


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, _take(file, struct.calcsize(form)))[0]


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise struct.error
    return data
