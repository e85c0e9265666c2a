"""The page of the docs that shows the monitor under load: docs/reference/benchmarks-monitor.md."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.monitor_browser import Opened, Soak
from bench.monitor_fanout import FanOut
from bench.queue_peers import machine
from msgspec import Struct

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "benchmarks-monitor.md"
_CROWDED = "The machine had far more to do than it has cores: times are rough, counts are not, CPU is steadier."


class Line(Struct, frozen=True):
    """A figure beside what it should be at most."""

    what: str
    figure: float
    unit: str = ""
    target: float | None = None

    def __str__(self) -> str:
        target, held = self._judged()
        return f"{self.what:<52}{self._number(self.figure):>9} {self.unit:<6}{target:>12}  {held}"

    @property
    def row(self) -> str:
        target, held = self._judged()
        return f"| {self.what} | {self._number(self.figure)} {self.unit} | {target} | {held} |".replace("  ", " ")

    def _judged(self) -> tuple[str, str]:
        if self.target is None:
            return "", ""
        return f"≤ {self._number(self.target)} {self.unit}".strip(), "yes" if self.figure <= self.target else "no"

    @staticmethod
    def _number(figure: float) -> str:
        return f"{figure:,.2f}" if abs(figure) < 10 and figure != int(figure) else f"{figure:,.0f}"


def of_fan_out(found: FanOut) -> list[Line]:
    return [
        Line(f"control plane at {found.events_per_s:g} events/s to each", found.cores, "cores", 0.6),
        Line("from the worker to a reader, p50", found.p50_ms, "ms"),
        Line("from the worker to a reader, p99", found.p99_ms, "ms", 50),
        Line("from the worker to a reader, at most", found.max_ms, "ms"),
        Line("events that a reader did not get", found.dropped, "", 0),
        Line("readers that got a snapshot instead", found.resynced, "", 0),
        Line("streams that the control plane closed", found.ended, "", 0),
        Line("an event on the wire", found.bytes_per_event, "bytes"),
        Line("memory of the control plane", found.memory_mb, "MB"),
    ]


def of_opened(found: Opened) -> list[Line]:
    return [
        Line("first paint", found.first_paint_ms, "ms", 2000),
        Line("the first nodes on the screen", found.shown_ms, "ms", 2000),
        *(Line(f"{act}: slowest answer", took_ms, "ms", 100) for act, took_ms in found.answers_ms.items()),
        *(Line(f"{act}: until all of it is there", took_ms, "ms") for act, took_ms in found.whole_ms.items()),
        Line("longest that the page was busy, looked at", found.longest_ms, "ms"),
        Line("JavaScript's memory", found.heap_mb, "MB"),
        Line("memory of the tab's process", found.memory_mb, "MB"),
        Line("browser, looked at", found.browser_cores, "cores"),
        Line("control plane", found.plane_cores, "cores"),
    ]


def of_soak(found: Soak) -> list[Line]:
    return [
        Line("all jobs done after", found.done_s, "s"),
        Line("disconnects", found.disconnects, "", 0),
        Line("gaps, each with a snapshot instead", found.gaps, "", 0),
        Line("differences to the server at the end", len(found.differences), "", 0),
        Line("errors and warnings on the console", len(found.problems), "", 0),
        Line("longest that the page was busy", found.longest_ms, "ms"),
        Line("JavaScript's memory at first", found.heap_first_mb, "MB"),
        Line("JavaScript's memory at the end", found.heap_mb, "MB"),
        Line("browser", found.browser_cores, "cores"),
        Line("control plane", found.plane_cores, "cores"),
    ]


def write(tables: Mapping[str, Sequence[Line]], load: float) -> Path:
    parts = [
        "# The monitor, measured",
        "",
        "<!-- Made by `python -m bench monitor`; how to read it: docs/guides/benchmarks.md. -->",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Load of the machine: {load:.1f}.",
        "Control plane, fleet, readers and browser share these cores. Compare only figures of one page.",
        *([_CROWDED] if load > 2 * (os.cpu_count() or 1) else []),
    ]
    for title, lines in tables.items():
        parts += ["", f"## {title}", "", "| What | Figure | Target | Held |", "|---|---|---|---|"]
        parts += [line.row for line in lines]
    _PAGE.write_text("\n".join(parts) + "\n")
    return _PAGE
