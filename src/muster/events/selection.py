"""What concerns a monitor that asked for some machines only: these, and the jobs while they are on one of them."""

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct


class PlacedJob(Protocol):
    @property
    def job_id(self) -> str: ...
    @property
    def machine_id(self) -> str | None: ...
    @property
    def final(self) -> bool: ...


class Wish(Struct, frozen=True, kw_only=True):
    """What a monitor wants to hear of: everything, or some machines and the jobs on them.

    With `whole_up_to` a fleet of no more machines is told whole, and of a larger one `machines` alone, beside a line
    about each of the others; `all_jobs` adds the jobs that are elsewhere.
    """

    machines: frozenset[str] = frozenset()
    all_jobs: bool = False
    whole_up_to: int | None = None

    def selection(self, fleet_size: int) -> "Selection | None":
        """Return what to pick out of everything; None is everything."""
        if self.whole_up_to is None:
            return Selection(self.machines) if self.machines else None
        if fleet_size <= self.whole_up_to:
            return None
        return Selection(self.machines, all_jobs=self.all_jobs, lines=True)


class Selection:
    """With `lines` there is a line about every machine of the fleet beside those selected."""

    def __init__(self, machines: frozenset[str], *, all_jobs: bool = False, lines: bool = False) -> None:
        self.machines = machines
        self.all_jobs = all_jobs
        self.lines = lines
        self._running: set[str] = set()

    def has_lines(self) -> bool:
        return self.lines

    def has_machine(self, machine_id: str) -> bool:
        return machine_id in self.machines

    def has_job(self, job: PlacedJob) -> bool:
        """Also of a job that just left for elsewhere: else it would be taken to be there for ever."""
        if self.all_jobs:
            return True
        was_here = job.job_id in self._running
        is_here = job.machine_id in self.machines
        self._note(job, is_here=is_here)
        return is_here or was_here

    def has_progress(self, job_id: str) -> bool:
        return self.all_jobs or job_id in self._running

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


Concerns = Callable[[Selection], bool]
