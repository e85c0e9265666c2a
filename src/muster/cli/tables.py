"""What people see: tables, times and sizes in words. Cells are text, never markup: names come from other machines."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 200  # a pipe has no width; columns should not be cut for it
_WHOLE_SECONDS_FROM = 10
_STYLES = {
    "healthy": "green", "completed": "green", "idle": "green", "ok": "green", "yes": "green", "ready": "green",
    "degraded": "yellow", "stale": "yellow", "unworkable": "yellow", "draining": "yellow", "warn": "yellow",
    "busy": "cyan", "assigned": "cyan", "in_progress": "cyan", "pending": "cyan", "starting": "cyan",
    "unhealthy": "red", "dead": "red", "failed": "red", "timeout": "red", "missing": "red", "error": "red",
    "created": "cyan", "sent": "cyan", "acked": "cyan", "done": "green", "expired": "red",
}  # fmt: skip

Row = Mapping[str, Any]


class Column(NamedTuple):
    title: str
    value: Callable[[Row], object]  # None is shown as a dash
    right: bool = False


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, highlight=False, soft_wrap=True, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    )


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Row], columns: Sequence[Column], *, empty: str, note: str = "") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not rows:
        if empty:
            out.print(empty, markup=False)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        cells = [in_words(column.value(row)) for column in columns]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    out.print(table)
    if note:
        out.print(note, markup=False, style="dim")


def show_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print name and value, one a line; a value of None is left out."""
    from rich.text import Text

    out = console()
    shown = [(name, in_words(value)) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        out.print(Text(f"{name:<{width}}  ", style="bold"), Text(value, style=_STYLES.get(value, "")), sep="")


def in_words(value: object) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {in_words(item)}" for name, item in value.items())
    return str(value)


def ago(at_ms: int | None) -> str | None:
    """Say how long ago that was, by this machine's clock."""
    if at_ms is None:
        return None
    return f"{duration(max(0.0, time.time() - at_ms / 1000))} ago"


def duration(seconds: float) -> str:
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= _WHOLE_SECONDS_FROM else f"{seconds:.1f} s"


def size(count: float | None) -> str | None:
    """Write bytes in decimal units, as disks and downloads are sold."""
    if count is None:
        return None
    for unit, bytes_each in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count:.0f} B"
