"""Times as people say them."""

import re
from datetime import datetime

from muster.errors import InvalidInput

_AGO = re.compile(r"(\d{1,9})([smhd])\Z")
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_time(text: str | None, now_ms: int, field: str) -> int | None:
    """Return the time (ms) that is meant: so long ago, an RFC 3339 time, or a number of ms."""
    if text is None or not text.strip():
        return None
    if (ago := _AGO.match(text.strip())) is not None:
        return now_ms - int(ago[1]) * _UNITS_MS[ago[2]]
    if text.strip().isdigit():
        return int(text)
    try:
        return round(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(
            f"{field} is a time like 5m (ago), 2026-01-31T12:00:00Z or ms, got {text!r}", field=field
        ) from None
