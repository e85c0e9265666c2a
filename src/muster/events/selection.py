"""What concerns a monitor that asked for some machines only: these, and the jobs while they are on one of them."""

from collections.abc import Iterable
from typing import Protocol


class PlacedJob(Protocol):
    @property
    def job_id(self) -> str: ...
    @property
    def machine_id(self) -> str | None: ...
    @property
    def final(self) -> bool: ...


class Selection:
    def __init__(self, machines: frozenset[str]) -> None:
        self.machines = machines
        self._running: set[str] = set()

    def has_machine(self, machine_id: str) -> bool:
        return machine_id in self.machines

    def has_job(self, job: PlacedJob) -> bool:
        """Also of a job that just left for elsewhere: else it would be taken to be there for ever."""
        was_here = job.job_id in self._running
        is_here = job.machine_id in self.machines
        self._note(job, is_here=is_here)
        return is_here or was_here

    def has_progress(self, job_id: str) -> bool:
        return job_id in self._running

    def shown(self, jobs: Iterable[PlacedJob]) -> None:
        """Forget what was there before a snapshot with these."""
        self._running.clear()
        for job in jobs:
            self._note(job, is_here=job.machine_id in self.machines)

    def _note(self, job: PlacedJob, *, is_here: bool) -> None:
        if is_here and not job.final:
            self._running.add(job.job_id)
        else:
            self._running.discard(job.job_id)
