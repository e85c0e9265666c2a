"""The page of the docs that shows the queue beside others: docs/reference/benchmarks-queue.md."""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.queue_peers import PEERS, Figures, Outcome, machine

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "benchmarks-queue.md"
_CROWDED = (
    "The machine had more to do than it has cores: rates, latencies and even ratios are rough, CPU per job is steadier."
)
_HEADS = (
    "queue",
    "enqueue/s one by one / bulk",
    "drain/s, results off / on",
    "Muster ÷ it",
    "CPU µs/job: worker / server",
    "worker MB",
    "idle ms p50 / p99",
)
_RATIO_HEADS = ("what", "Muster", "beside it", "its figure", "Muster ÷ it")


def ratios_table(outcome: Outcome) -> list[str]:
    """Return what to compare machines by: Muster over the others, both measured in this run."""
    mine = {name: found for name, found in outcome.figures.items() if name.startswith("Muster")}
    others = {name: found for name, found in outcome.figures.items() if name not in mine}
    node = {name: found for name, found in others.items() if name == "BullMQ"}
    python = {name: found for name, found in others.items() if name not in node}
    rows = [
        # Jobs are submitted in the same way whatever takes them: the best of several would be luck.
        _ratio("enqueue/s one by one", "one", _middle(mine, "one"), others),
        _ratio("enqueue/s in bulk", "bulk", _middle(mine, "bulk"), node),
        _ratio("drain/s with results", "on drain", _best(mine, "on drain")[0], node),
        _ratio("drain/s with results", "on drain", _best(mine, "on drain")[0], python),
    ]
    return [f"| {' | '.join(_RATIO_HEADS)} |", "|---" * len(_RATIO_HEADS) + "|", *(row for row in rows if row)]


def _ratio(what: str, figure: str, mine: float, others: Mapping[str, Figures]) -> str:
    best, name = _best(others, figure)
    if not best or not mine:
        return ""
    beside = name if len(others) == 1 else f"{name}, the best of {len(others)}"
    return f"| {what} | {_told(mine)} | {beside} | {_told(best)} | {mine / best:.2f} |"


def _best(figures: Mapping[str, Figures], figure: str) -> tuple[float, str]:
    return max(((found.median(figure) or 0.0, name) for name, found in figures.items()), default=(0.0, ""))


def _middle(figures: Mapping[str, Figures], figure: str) -> float:
    found = [median for each in figures.values() if (median := each.median(figure)) is not None]
    return statistics.median(found) if found else 0.0


def peers_table(outcome: Outcome) -> list[str]:
    """Medians; the ratio is of drains with results, to the largest batch of Muster."""
    lines = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    best, _ = _best({n: found for n, found in outcome.figures.items() if n.startswith("Muster")}, "on drain")
    return lines + [_row(name, found, best) for name, found in outcome.figures.items()]


def _row(name: str, found: Figures, best: float) -> str:
    language = next(peer.language for peer in PEERS if peer.name == name)
    drain = found.median("on drain")
    cells = [
        name if language == "Python" else f"{name} ({language})",
        f"{_told(found.median('one'))} / {_told(found.median('bulk'))}",
        f"{_told(found.median('off drain'))} / {_told(drain)}",
        f"{best / drain:.1f}" if drain else "-",
        f"{_told(found.median('on worker_us'))} / {_told(found.median('on server_us'))}",
        _told(found.median("on worker_mb")),
        f"{_told(found.latency_ms(0.5), 2)} / {_told(found.latency_ms(0.99), 2)}",
    ]
    return f"| {' | '.join(cells)} |"


def _told(figure: float | None, digits: int = 0) -> str:
    return "-" if figure is None else f"{figure:,.{digits}f}"


def write(outcome: Outcome, tables: Mapping[str, Sequence[str]]) -> Path:
    _PAGE.write_text("\n".join(_lines(outcome, tables)) + "\n")
    return _PAGE


def _lines(outcome: Outcome, tables: Mapping[str, Sequence[str]]) -> list[str]:
    settings = [
        f"| {peer.name} | {peer.setting} | {', '.join(peer.packages) or 'this tree'} |"
        for peer in PEERS
        if peer.name in outcome.figures
    ]
    absent = [f"- {name} is not in the table: it {why}." for name, why in outcome.absent.items()]
    return [
        "# The job queue, measured",
        "",
        "<!-- Made by `python -m bench queue --peers`; how to read it: docs/guides/benchmarks.md. -->",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {outcome.server}.",
        f"Load of the machine while the peers were measured: {outcome.load}.",
        *([_CROWDED] if outcome.crowded else []),
        "",
        "## In short",
        "",
        "A rate says as much about the machine as about the queue: compare rates of one page only. To compare with a",
        "page that another machine has made, take the ratios. All of these were measured in one run, in turns, on one",
        "server; Muster's drain is that of its best batch, its submits are the middle of all its rows.",
        "",
        *tables["ratios"],
        "",
        "## Beside other queues",
        "",
        "No-op jobs, one worker process each, one server on the loopback without an append-only file, medians of",
        f"{outcome.repetitions} repetitions that go round all queues, of {outcome.share:.0%} of the usual jobs.",
        "`Muster ÷ it`: Muster's largest batch over the queue's drain, both with results.",
        "",
        *tables["peers"],
        "",
        *absent,
        *([""] if absent else []),
        "| queue | setting | version |",
        "|---|---|---|",
        *settings,
        "",
        "## By how the server keeps its data",
        "",
        "Muster on the same Redis over a socket; `always` is synced to disk before each answer.",
        "",
        *tables["aof"],
        "",
        "## What one claim costs the server",
        "",
        "Each claim also ends the jobs of the claim before. Jobs with different requirements follow each other one by",
        "one, the worst case for a global order; in the last row a worker cannot run what is in front.",
        "",
        *tables["claims"],
    ]
