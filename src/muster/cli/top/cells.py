"""Figures as they stand in a cell. What is not known is a question mark, never 0."""

from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

UNKNOWN = "?"
_MB_PER_GB = 1024
_KILO = 1000


class Glyphs(NamedTuple):
    """The few signs that are no letters."""

    full: str
    empty: str
    dot: str
    degree: str
    line: str
    more: str


PRETTY = Glyphs("█", "░", "·", "°", "─", "…")
PLAIN = Glyphs("#", ".", "|", "", "-", "~")


def clean(value: object) -> str:
    """Return text in which nothing steers a terminal: names come from other machines."""
    text = str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def cut(text: str, width: int, glyphs: Glyphs) -> str:
    """Return text of exactly this width on the screen."""
    text = clean(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + glyphs.more if width > 0 else ""


def bar(share: float | None, width: int, glyphs: Glyphs) -> str:
    """Draw a share with its figure: `████░░░░  48%`; of an unknown one nothing is drawn."""
    cells = max(1, width - 5)
    if share is None:
        return " " * cells + f"{UNKNOWN:>5}"
    share = max(0.0, min(1.0, share))
    full = round(share * cells)
    full = max(full, 1) if share > 0 else 0  # a little is not nothing
    return glyphs.full * full + glyphs.empty * (cells - full) + f"{share * 100:4.0f}%"


def share_of(used: float | None, total: float | None) -> float | None:
    return used / total if used is not None and total else None


def gigabytes(used_mb: float | None, total_mb: float | None) -> str:
    used, total = (UNKNOWN if mb is None else f"{mb / _MB_PER_GB:.1f}" for mb in (used_mb, total_mb))
    return f"{used}/{total} GB"


def degrees(celsius: float | None, glyphs: Glyphs) -> str:
    return UNKNOWN if celsius is None else f"{celsius:.0f}{glyphs.degree}C"


def watts(power_w: float | None) -> str:
    if power_w is None:
        return UNKNOWN
    return f"{power_w:.0f}W" if power_w < _KILO else f"{power_w / _KILO:.1f}kW"


def span(seconds: float) -> str:
    """Say how long in as few letters as possible."""
    seconds = max(0.0, seconds)
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f}{unit}"
    return f"{seconds:.0f}s"
