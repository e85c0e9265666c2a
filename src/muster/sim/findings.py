"""Broken rules, as they are found."""

from collections import Counter

from muster.sim.report import Violation
from muster.sim.stories import Stories
from muster.sim.timeline import Timeline

_PER_RULE_MAX = 4  # the first ones tell the most: a broken rule is mostly broken again and again


class Findings:
    def __init__(self, timeline: Timeline, stories: Stories) -> None:
        self._timeline = timeline
        self._stories = stories
        self._found: list[Violation] = []
        self._times: Counter[str] = Counter()

    def broken(self, rule: str, subject: str, text: str) -> None:
        self._times[rule] += 1
        if self._times[rule] > _PER_RULE_MAX:
            return
        self._stories.tell(subject, f"BROKEN: {rule}: {text}")
        violation = Violation(
            rule=rule, subject=subject, text=text, at_s=self._timeline.monotonic_s(), story=self._stories.of(subject)
        )
        self._found.append(violation)

    def all(self) -> tuple[Violation, ...]:
        return tuple(self._found)
