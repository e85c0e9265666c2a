"""What a campaign found, for people and for programs."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.campaign.ledger import Violation
from tests.campaign.schedule import Fault


class Hit(Struct, frozen=True, kw_only=True):
    """A fault as it was; `recovery_s` counts from its end until the fleet did its job again (None: it did not)."""

    fault: Fault
    began_s: float
    ended_s: float
    recovery_s: float | None


class Rate(Struct, frozen=True, kw_only=True):
    when: str
    seconds: float
    ended: int

    @property
    def per_s(self) -> float:
        return self.ended / self.seconds if self.seconds else 0.0


class Report(Struct, frozen=True, kw_only=True):
    seed: int
    command: str
    began: str
    minutes: float
    shape: str
    store: str
    asked: int
    accepted: int
    tries: int
    answers_lost: int
    cancels: int
    ends: dict[str, int]
    events: dict[str, int]
    hits: tuple[Hit, ...]
    rates: tuple[Rate, ...]
    violations: tuple[Violation, ...]
    ailing: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.violations and not self.ailing and all(hit.recovery_s is not None for hit in self.hits)

    def save(self, folder: Path) -> None:
        (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        (folder / "report.txt").write_text(self.text())

    def text(self) -> str:
        return "\n".join([*self._head(), "", *self._faults(), "", *self._rates(), "", *self._verdict()]) + "\n"

    def _head(self) -> list[str]:
        retried = self.events.get("job_retrying", 0) + self.events.get("job_returned", 0)
        return [
            f"Fault campaign of {self.began}, seed {self.seed}: {self.shape}",
            f"Store: {self.store}",
            f"Again: {self.command}",
            "",
            f"submits: {self.asked} asked for, {self.accepted} accepted, {self.tries} calls, {self.cancels} cancelled",
            f"answers lost: {self.answers_lost} submits were known already when they were tried again",
            f"jobs ended: {', '.join(f'{count} {end}' for end, count in sorted(self.ends.items()))}",
            f"attempts: {self.events.get('job_claimed', 0)}, of which {retried} went back",
            f"results that came too late and were refused: {self.events.get('job_refused', 0)}",
        ]

    def _faults(self) -> list[str]:
        lines = ["   at s  fault                 whom         lasted s  recovered after s"]
        for hit in self.hits:
            after = "NOT" if hit.recovery_s is None else f"{hit.recovery_s:.1f}"
            lasted = hit.ended_s - hit.began_s
            lines.append(
                f"{hit.began_s:7.1f}  {hit.fault.kind:<20}  {hit.fault.target:<11}  {lasted:8.1f}  {after:>17}"
            )
        return [*lines, "", *self._recoveries()]

    def _recoveries(self) -> list[str]:
        lines = ["fault                 times  recovery s: median  longest"]
        for kind in sorted({hit.fault.kind for hit in self.hits}):
            found = [hit.recovery_s for hit in self.hits if hit.fault.kind == kind and hit.recovery_s is not None]
            if found:
                lines.append(f"{kind:<20}  {len(found):5}  {statistics.median(found):18.1f}  {max(found):7.1f}")
        return lines

    def _rates(self) -> list[str]:
        return [f"{rate.when:<14} {rate.per_s:6.1f} jobs/s over {rate.seconds:5.0f} s" for rate in self.rates]

    def _verdict(self) -> list[str]:
        bad = [f"{one.rule}: {one.job_id} {one.what}" for one in self.violations]
        bad += [f"at the end: {what}" for what in self.ailing]
        bad += [
            f"no recovery from {hit.fault.kind} of {hit.fault.target}" for hit in self.hits if hit.recovery_s is None
        ]
        if bad:
            return [f"FAILED: {len(bad)} things are not as they must be", *bad]
        return [
            "PASSED: 0 lost, 0 with two ends, every accepted submit accounted for, every result there,",
            "no attempt run by two, log and states agree, the fleet is healthy",
        ]


def rates(ended_at_ms: Sequence[int], marks_ms: Sequence[tuple[str, int]]) -> tuple[Rate, ...]:
    """Count ends between marks; each has the name of what begins there, the last one only ends."""
    found = []
    for (name, start), (_, end) in itertools.pairwise(marks_ms):
        count = sum(start <= at < end for at in ended_at_ms)
        found.append(Rate(when=name, seconds=(end - start) / 1000, ended=count))
    return tuple(found)
