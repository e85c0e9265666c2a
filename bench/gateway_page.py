"""What was found of the gateway, as tables, and the page of the docs: docs/reference/benchmarks-gateway.md.

The page has two parts that are made at different times, so each is put between marks of its own: `write` leaves the
other one as it is.
"""

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.gateway_peers import ALONE, ELSEWHERE, MUSTER, NGINX, PROGRAMS, version_of
from bench.queue_peers import machine
from msgspec import Struct, field

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "benchmarks-gateway.md"
_CROWDED = "The machine had more to do than it has cores: all of these figures are rough, those of CPU the least."
_OWN_LOAD = 1  # what is measured, and what measures it, fill two cores, with one in line now and then
_HEADS = (
    ("program", ""),
    ("requests/s", "requests_per_s"),
    ("CPU µs each", "cpu_us_per_request"),
    ("added p50 ms", "added_p50_ms"),
    ("events/s", "events_per_s"),
    ("CPU µs each", "cpu_us_per_event"),
    ("delay p99 ms", "delay_p99_ms"),
    ("memory MB", "memory_mb"),
    ("CPU µs each at 20/s", "cpu_us_per_slow_event"),
    ("let go ms", "let_go_ms"),
)
_DIGITS = {
    "requests_per_s": 0,
    "added_p50_ms": 2,
    "events_per_s": 0,
    "memory_mb": 0,
    "let_go_ms": 0,
}


class Figures(Struct, kw_only=True):
    """What the rounds gave, by name of the figure, and why a measure gave none, by name of the measure."""

    found: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        for name, figure in figures.items():
            self.found.setdefault(name, []).append(figure)

    def fail(self, measure: str, why: str) -> None:
        self.failed.setdefault(measure, []).append(why)

    def median(self, name: str) -> float | None:
        return statistics.median(self.found[name]) if name in self.found else None


class Outcome(Struct, frozen=True, kw_only=True):
    rounds: int
    loads: Sequence[float]  # of the machine, before each program
    figures: Mapping[str, Figures]
    absent: Mapping[str, str]


class Target(Struct, frozen=True, kw_only=True):
    """A figure of Muster's, over that of `beside` where there is one."""

    what: str
    figure: str
    limit: float
    most: bool = True  # at most `limit`; otherwise at least
    beside: str = ""
    unit: str = ""


_TARGETS = (
    Target(what="requests/s ÷ vllm-router's", figure="requests_per_s", limit=1.0, most=False, beside="vllm-router"),
    Target(what="requests/s ÷ LiteLLM's", figure="requests_per_s", limit=150, most=False, beside="LiteLLM"),
    Target(what="requests/s ÷ nginx's", figure="requests_per_s", limit=0.6, most=False, beside=NGINX),
    Target(what="added p50", figure="added_p50_ms", limit=0.2, unit=" ms"),
    Target(what="CPU for an event ÷ nginx's, 20/s", figure="cpu_us_per_slow_event", limit=1.5, beside=NGINX),
    Target(what="CPU for an event ÷ nginx's, 100/s", figure="cpu_us_per_event", limit=1.5, beside=NGINX),
    Target(what="delay p99", figure="delay_p99_ms", limit=20, unit=" ms"),
    Target(what="memory with 1,000 streams", figure="memory_mb", limit=80, unit=" MB"),
    Target(what="upstream cancelled, 500 leaving at once", figure="let_go_ms", limit=200, unit=" ms"),
)


def targets_table(outcome: Outcome) -> list[str]:
    """Of Muster as it is shipped, and of its gateway alone."""
    lines = ["| what | target | Muster | held | gateway alone | held |", "|---|---|---|---|---|---|"]
    for target in _TARGETS:
        cells = [_held(target, outcome, name) for name in (MUSTER, ALONE)]
        if any(cells):
            sign = "≤" if target.most else "≥"
            told = " | ".join(cell or "- | -" for cell in cells)
            lines.append(f"| {target.what} | {sign} {target.limit:g}{target.unit} | {told} |")
    return lines


def _held(target: Target, outcome: Outcome, name: str) -> str:
    figure = _figure(outcome, name, target.figure)
    if target.beside:
        other = _figure(outcome, target.beside, target.figure)
        figure = figure / other if figure and other else None
    if figure is None:
        return ""
    held = figure <= target.limit if target.most else figure >= target.limit
    return f"{_told(figure, 0 if abs(figure) >= 20 else 2)}{target.unit} | {'yes' if held else '**no**'}"


def _figure(outcome: Outcome, name: str, figure: str) -> float | None:
    found = outcome.figures.get(name)
    return found.median(figure) if found is not None else None


def programs_table(outcome: Outcome) -> list[str]:
    lines = [f"| {' | '.join(head for head, _ in _HEADS)} |", "|---" * len(_HEADS) + "|"]
    for name, found in outcome.figures.items():
        cells = [_told(found.median(figure), _DIGITS.get(figure, 1)) for _, figure in _HEADS[1:]]
        lines.append(f"| {' | '.join((_named(name), *cells))} |")
    return lines


def missing(outcome: Outcome) -> list[str]:
    """Say what is not there, and why."""
    failed = [
        f"- {name}, {measure}: failed in {len(reasons)} of {outcome.rounds} rounds ({reasons[-1]})."
        for name, found in outcome.figures.items()
        for measure, reasons in found.failed.items()
    ]
    absent = [f"- {name} is not in the table: it {reason}." for name, reason in outcome.absent.items()]
    return failed + absent


def _named(name: str) -> str:
    language = next(program.language for program in PROGRAMS if program.name == name)
    return f"{name} ({language})"


def _told(figure: float | None, digits: int) -> str:
    return "-" if figure is None else f"{figure:,.{digits}f}"


# --- the page ---------------------------------------------------------------------------------------------------------


def write(outcome: Outcome) -> Path:
    return write_part("peers", _peers_part(outcome))


def write_part(name: str, lines: Sequence[str]) -> Path:
    """Put these lines where the page has the part of this name."""
    PAGE.write_text(replaced(PAGE.read_text(), name, lines))
    return PAGE


def replaced(page: str, name: str, lines: Sequence[str]) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    part = "\n".join((begin, "", *lines, "", end))
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: part, page, count=1, flags=re.DOTALL)


def measured_on() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine()}"


def _peers_part(outcome: Outcome) -> list[str]:
    load = statistics.median(outcome.loads)
    settings = [
        f"| {program.name} | {program.setting} | {version_of(program)} |"
        for program in PROGRAMS
        if program.name in outcome.figures
    ]
    return [
        f"{measured_on()}; medians of {outcome.rounds} rounds that go round all programs.",
        f"Load of the machine meanwhile: {load:.1f} in the median, {max(outcome.loads):.1f} at most.",
        *([_CROWDED] if load > (os.cpu_count() or 1) + _OWN_LOAD else []),
        "",
        *targets_table(outcome),
        "",
        "### All of them",
        "",
        *programs_table(outcome),
        "",
        *missing(outcome),
        *(f"- {name} is not in the table: it is in no package registry." for name in ELSEWHERE),
        "",
        "| program | setting | version |",
        "|---|---|---|",
        *settings,
    ]
