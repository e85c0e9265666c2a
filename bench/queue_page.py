"""The page of the docs that shows the queue beside others: docs/reference/benchmarks-queue.md."""

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


def peers_table(outcome: Outcome) -> list[str]:
    """Medians; the ratio is of drains with results, to the largest batch of Muster."""
    lines = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    best = max(
        (found.median("on drain") or 0.0 for name, found in outcome.figures.items() if name.startswith("Muster")),
        default=0.0,
    )
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
        f"Load of the machine while the peers were measured: {outcome.load}. Compare only figures of one page.",
        *([_CROWDED] if outcome.crowded else []),
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
