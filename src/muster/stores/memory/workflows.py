from collections import defaultdict
from collections.abc import Iterable

from muster.domain.event import Event
from muster.domain.job import JobSpec, JobStatus
from muster.ids import JobId
from muster.stores import rules
from muster.stores.memory.records import Record


class Workflows:
    """Which jobs of each workflow are open, and which ended otherwise than completed."""

    def __init__(self) -> None:
        self._open: defaultdict[str, set[JobId]] = defaultdict(set)
        self._bad: defaultdict[str, set[JobId]] = defaultdict(set)

    def opened(self, spec: JobSpec) -> None:
        name = rules.told_workflow(spec)
        if name is not None:
            self._open[name].add(spec.job_id)
            self._bad[name].discard(spec.job_id)

    def ended(self, records: Iterable[Record], now_ms: int) -> list[Event]:
        """Take out what has ended; return the ends of those workflows that have no open job any more."""
        events = []
        for record in records:
            name = rules.told_workflow(record.spec)
            if name is None or record.job_id not in self._open[name]:
                continue
            self._open[name].discard(record.job_id)
            if record.state.status is not JobStatus.COMPLETED:
                self._bad[name].add(record.job_id)
            if not self._open[name]:
                events.append(rules.workflow_ended(name, len(self._bad[name]), now_ms))
        return events

    def forget(self, kept: set[str | None]) -> None:
        for names in (self._open, self._bad):
            for name in names.keys() - kept:
                del names[name]
