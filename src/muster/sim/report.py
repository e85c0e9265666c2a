"""What a simulated world came to."""

from msgspec import Struct, field


class Violation(Struct, frozen=True, kw_only=True):
    """A rule that did not hold. The seed replays it; the story is how its subject came to this."""

    rule: str
    subject: str
    text: str
    at_s: float
    story: tuple[str, ...]


class Report(Struct, frozen=True, kw_only=True):
    """`jobs` counts by how they ended, `faults` by kind; worlds with equal `trace_hash` went the same way."""

    seed: int
    nodes: int
    events: int
    duration_virtual_s: float
    faults: dict[str, int]
    violations: tuple[Violation, ...]
    trace_hash: str
    jobs: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    choices: int = 0

    @property
    def ok(self) -> bool:
        return not self.violations


def render(report: Report) -> str:
    minutes = report.duration_virtual_s / 60
    lines = [
        f"seed {report.seed}: {report.nodes} nodes, {minutes:.1f} virtual minutes, {report.events:,} events",
        f"jobs:   {_counts(report.jobs)}; {report.attempts:,} attempts; {report.choices:,} requests placed",
        f"faults: {_counts(report.faults)}",
        f"trace:  {report.trace_hash}",
    ]
    for violation in report.violations:
        lines += ["", f"BROKEN at {violation.at_s:.3f} s: {violation.rule}: {violation.subject} {violation.text}"]
        lines += [f"  {line}" for line in violation.story]
    lines.append("" if report.violations else "every rule held")
    if report.violations:
        lines.append(f"{len(report.violations)} rules broken; replay: muster sim --seed {report.seed}")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"
