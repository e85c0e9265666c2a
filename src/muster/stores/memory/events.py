from typing import Any

from msgspec import Struct, field

from muster.domain.event import Event
from muster.ids import JobId, WorkerId
from muster.stores import rules
from muster.stores.memory.log import MemoryLog


class _Group(Struct):
    ids: list[JobId] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    codes: list[str | None] = field(default_factory=list)


class JobEvents:
    """What one call has to tell of jobs: one event for each kind and worker, or a few when there are many jobs.

    The lists in its data run beside `ids`. Data are small: never a payload or a result.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, WorkerId | None], _Group] = {}

    def add(
        self, kind: str, job_id: JobId, worker_id: WorkerId | None = None, attempt: int = 0, code: str | None = None
    ) -> None:
        group = self._groups.setdefault((kind, worker_id), _Group())
        group.ids.append(job_id)
        group.attempts.append(attempt)
        group.codes.append(code)

    def write(self, log: MemoryLog, now_ms: int) -> None:
        for (kind, worker_id), group in self._groups.items():
            for first in range(0, len(group.ids), rules.EVENT_IDS_MAX):
                part = slice(first, first + rules.EVENT_IDS_MAX)
                data: dict[str, Any] = {}
                if worker_id is not None:
                    data = {"worker_id": worker_id, "attempts": group.attempts[part]}
                if any(group.codes):
                    data["codes"] = group.codes[part]
                ids = tuple(group.ids[part])
                # Where the key says it all, ids are left out.
                log.add(Event(kind=kind, key=ids[0], at_ms=now_ms, data=data, ids=ids if len(ids) > 1 else ()))
