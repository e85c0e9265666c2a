"""Where jobs are kept and put in order."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, Job, JobSpec, JobStatus, Lease, Need, Settlement
from muster.domain.queue import CustomerFigures, CustomerTerms, QueueFigures
from muster.ids import JobId, SessionId, WorkerId
from muster.wire import (
    ProgressReport,
)


class Submitted(Struct, frozen=True):
    job_id: JobId
    created: bool  # false: this id was known; nothing was changed


class Claimed(Struct, frozen=True, kw_only=True):
    jobs: tuple[ClaimedJob, ...] = ()
    refused: tuple[JobId, ...] = ()
    session_known: bool = True


class Renewed(Struct, frozen=True, kw_only=True):
    lost: tuple[JobId, ...] = ()
    returned: tuple[JobId, ...] = ()
    session_known: bool = True


class JobPage(Struct, frozen=True, kw_only=True):
    jobs: tuple[Job, ...]
    total: int
    next_cursor: str | None = None


class CapabilityClass(Struct, frozen=True, kw_only=True):
    class_id: str
    capability: Capability
    sessions: int  # how many live sessions have it; 0: nobody at present


class Expired(Struct, frozen=True, kw_only=True):
    """Jobs that their own deadline ended, each with the worker that ran it; `more`: there may be others."""

    jobs: tuple[tuple[JobId, WorkerId | None], ...]
    more: bool


class JobQueue(Protocol):
    """The work itself. Every call is atomic and safe to repeat; leases are judged by the store's one clock."""

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        """Raise InvalidInput for a dependency that does not exist, QueueFull where too many of a customer wait."""
        ...

    async def open_session(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float
    ) -> None: ...

    async def claim(
        self,
        session_id: SessionId,
        worker_id: WorkerId,
        want: int,
        done: Sequence[Settlement] = (),
        *,
        lease_s: float,
        mark_idle: bool = False,
    ) -> Claimed:
        """Settle `done`, renew the session, take the best `want` jobs: priority, then first come, over all signatures.

        With `mark_idle` an empty claim asks the bus for a wake-up (topic "wake", the class id) when work arrives.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End attempts from outside a session (sweep, failures); False where the attempt was not the running one."""
        ...

    async def renew(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], *, lease_s: float, grace_s: float
    ) -> Renewed:
        """Leases older than `grace_s` that are not in `held` go back to the queue: the claim's reply was lost."""
        ...

    async def record_progress(self, session_id: SessionId, reports: Sequence[ProgressReport]) -> list[JobId]:
        """Return the ids whose lease is lost."""
        ...

    async def close_session(self, session_id: SessionId) -> list[JobId]: ...


class JobIndex(Protocol):
    """Reading and acting on single jobs."""

    async def get(self, job_ids: Sequence[JobId]) -> list[Job | None]: ...
    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        """Pending and delayed jobs come in queue order, all others newest first. A bad cursor is InvalidInput."""
        ...

    async def counts(self) -> dict[JobStatus, int]:
        """Count each job once: the pending ones that nobody who is there can run as unworkable."""
        ...

    async def position(self, job_id: JobId) -> int | None:
        """How many pending jobs come before it, over all signatures; None when it does not wait."""
        ...

    async def waiting(self, need: Need) -> int:
        """Count the jobs in line with this very need."""
        ...

    async def cancel(self, job_id: JobId) -> Job:
        """Raise JobNotFound, or InvalidTransition when it has already ended."""
        ...

    async def revive(self, job_id: JobId) -> Job:
        """Put a failed, timed-out or cancelled job back with its retries counted anew; raises as `cancel` does."""
        ...


class JobLines(Protocol):
    """What is said of many jobs at once: their queues, each of one service, and their customers."""

    async def queues(self) -> list[QueueFigures]: ...
    async def paused(self) -> frozenset[str]:
        """Return the paused services; ALL_SERVICES: every one."""
        ...

    async def set_paused(self, service: str, *, paused: bool) -> bool:
        """Return whether that changed something."""
        ...

    async def customers(self) -> list[CustomerFigures]:
        """Return those for whom something is set."""
        ...

    async def customer(self, name: str) -> CustomerFigures: ...
    async def set_customer(self, name: str, terms: CustomerTerms | None) -> bool:
        """Return whether there were terms before; None: forget them."""
        ...


class JobUpkeep(Protocol):
    """What the sweep needs."""

    async def overdue(self, limit: int) -> list[Lease]: ...
    async def promote(self, limit: int) -> int:
        """Bring into line what is due, and go on with those whose dependencies have ended; return how many."""
        ...

    async def expire(self, limit: int) -> Expired:
        """End jobs whose `deadline_s` is over, waiting or running."""
        ...

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int: ...
    async def classes(self) -> list[CapabilityClass]: ...
