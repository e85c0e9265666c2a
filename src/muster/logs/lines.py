"""A log's bytes as lines that can be shown: cut, made readable, with the time and the level that they tell."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from muster.access.masking import mask

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
LINE_BYTES_MAX = 16_384  # a longer one is told in pieces
_AHEAD_MS_MAX = 2_000  # by how much a line's own time may be later than when it was seen

_PIECES = re.compile(rb"[^\r\n]{1,%d}" % LINE_BYTES_MAX)  # a carriage return ends a line too: bars of progress use it
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_UNREADABLE = dict.fromkeys([*range(9), *range(10, 32), 127, *range(128, 160)], "\ufffd")  # all controls but tab

_TIME = re.compile(
    r"[\[(<]?(?:[A-Za-z]{3,8}[\]:]? +)?[\[(]?"  # it may follow a level, or stand in brackets
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))? ?(Z|[+-]\d\d:?\d\d)?"
)
_VALKEY_TIME = re.compile(r"\d+:[A-Z] (\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d)\.(\d{3})")
_LEVEL = re.compile(
    r"(?:^|[\s\[(|])(DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRITICAL|FATAL)(?:$|[\s\])|:])"
    r"|\[(debug|info|notice|warn(?:ing)?|error|critical|fatal)\]"
    r"|\blevel=\"?(debug|info|notice|warn(?:ing)?|error|critical|fatal)\b"
)
_BAD_SIGNS = (b"warn", b"error", b"crit", b"fatal")
_LEVEL_SIGNS = ("DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "FATAL", "]", "level=")  # most lines have none
_LEVEL_WITHIN = 96  # a word further on belongs to what is said
_NAMES = {"notice": "info", "warn": "warning", "critical": "error", "fatal": "error"}
_TIME_KEYS = ("timestamp", "time", "ts")
_LEVEL_KEYS = ("level", "severity")
_SECONDS_BELOW = 100_000_000_000  # a number below is in seconds: as milliseconds it would be 1973


def pieces(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Tell each line that is not empty with its place; the last may not be complete."""
    for found in _PIECES.finditer(block):
        yield found.start(), found[0]


def readable(raw: bytes) -> str:
    """Return what may be shown on anybody's screen: no secrets, no controls."""
    text = raw.decode(errors="replace")
    if not text.isprintable():
        text = _ESCAPES.sub("", text).translate(_UNREADABLE)
    return mask(text)


def may_be_bad(raw: bytes) -> bool:
    """Tell, without much looking, whether there may be a line of level `warning` or above."""
    lowered = raw.lower()
    return any(sign in lowered for sign in _BAD_SIGNS)


def told_by(text: str) -> tuple[int | None, str | None]:
    """Return the time (ms) and the level that a line tells of itself."""
    if text.startswith("{") and (fields := _fields(text)) is not None:
        times = (_number_or_time(fields[key]) for key in _TIME_KEYS if key in fields)
        levels = (str(fields[key]) for key in _LEVEL_KEYS if key in fields)
        return next(times, None), _level(next(levels, ""))
    head = text[:_LEVEL_WITHIN]
    found = _LEVEL.search(head) if any(sign in head for sign in _LEVEL_SIGNS) else None
    return _time_in(text), _level(next(filter(None, found.groups()))) if found else None


def believed(own_ms: int | None, seen_ms: int | None) -> tuple[int | None, bool]:
    """Return a line's time, and whether it is only when it was seen: what was to come later cannot be its own."""
    if own_ms is not None and (seen_ms is None or own_ms <= seen_ms + _AHEAD_MS_MAX):
        return own_ms, False
    return seen_ms, seen_ms is not None


def _fields(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def _level(word: str) -> str | None:
    name = word.lower()
    name = _NAMES.get(name, name)
    return name if name in LEVELS else None


def _number_or_time(value: Any) -> int | None:
    if isinstance(value, str):
        return _time_in(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _SECONDS_BELOW * 1000:
        return None
    return round(value * 1000 if value < _SECONDS_BELOW else value)


def _time_in(text: str) -> int | None:
    """Return the time that a line begins with; one that names no zone is in this machine's."""
    try:
        if (found := _TIME.match(text)) is not None:
            day, time, fraction, zone = found.groups()
            at = datetime.fromisoformat(f"{day}T{time}{zone or ''}")
            return round(at.timestamp() * 1000) + int(((fraction or "") + "000")[:3])
        if (found := _VALKEY_TIME.match(text)) is not None:
            at = datetime.strptime(found[1], "%d %b %Y %H:%M:%S").astimezone()
            return round(at.timestamp() * 1000) + int(found[2])
    except (ValueError, OverflowError, OSError):  # the 31st of February, the year 0
        return None
    return None
