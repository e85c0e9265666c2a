"""The job store with the ledger looking on, and with outages."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol

from muster.domain.capability import Capability
from muster.domain.job import Job, JobSpec, JobStatus, Lease, Need, Settlement
from muster.errors import StoreUnavailable
from muster.ids import JobId, SessionId, WorkerId
from muster.ports import (
    CapabilityClass,
    Claimed,
    Expired,
    JobIndex,
    JobLines,
    JobPage,
    JobQueue,
    JobUpkeep,
    Renewed,
    Submitted,
)
from muster.sim.ledger import Jobs, Ledger
from muster.wire import ProgressReport


class JobStore(JobQueue, JobIndex, JobUpkeep, JobLines, Protocol):
    """All that a job store is."""


class WatchedJobs:
    """A JobQueue, JobIndex and JobUpkeep. While `away`, a call fails before or after it was carried out."""

    def __init__(self, behind: JobStore, ledger: Ledger, rng: Random) -> None:
        self.behind = behind
        self.away = False
        self._ledger = ledger
        self._rng = rng

    def _ask(self) -> None:
        if self.away and self._rng.random() < 0.5:  # noqa: PLR2004 as likely before as after
            raise StoreUnavailable("the store cannot be reached")

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the store did not answer")

    async def _look(self, job_ids: Iterable[JobId]) -> Jobs:
        wanted = list(dict.fromkeys(job_ids))
        return dict(zip(wanted, await self.behind.get(wanted), strict=True))

    # --- JobQueue ----------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        self._ask()
        submitted = await self.behind.submit(specs)
        self._ledger.submitted(specs, submitted, await self._look(spec.job_id for spec in specs))
        self._answer()
        return submitted

    async def open_session(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float
    ) -> None:
        self._ask()
        await self.behind.open_session(session_id, worker_id, capability, lease_s)
        self._ledger.opened(session_id, worker_id, capability, lease_s)
        self._answer()

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
        self._ask()
        claimed = await self.behind.claim(session_id, worker_id, want, done, lease_s=lease_s, mark_idle=mark_idle)
        touched = [settlement.job_id for settlement in done] + [job.spec.job_id for job in claimed.jobs]
        self._ledger.claimed(session_id, want, done, claimed, await self._look(touched), lease_s)
        self._answer()
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self._ask()
        accepted = await self.behind.settle(settlements)
        touched = await self._look(settlement.job_id for settlement in settlements)
        self._ledger.settled(settlements, accepted, touched)
        self._answer()
        return accepted

    async def renew(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], *, lease_s: float, grace_s: float
    ) -> Renewed:
        self._ask()
        renewed = await self.behind.renew(session_id, held, lease_s=lease_s, grace_s=grace_s)
        self._ledger.renewed(session_id, held, renewed, await self._look(renewed.returned), lease_s)
        self._answer()
        return renewed

    async def record_progress(self, session_id: SessionId, reports: Sequence[ProgressReport]) -> list[JobId]:
        self._ask()
        lost = await self.behind.record_progress(session_id, reports)
        touched = await self._look(report.job_id for report in reports)
        self._ledger.progressed(session_id, reports, lost, touched)
        self._answer()
        return lost

    async def close_session(self, session_id: SessionId) -> list[JobId]:
        self._ask()
        returned = await self.behind.close_session(session_id)
        self._ledger.closed(session_id, returned, await self._look(returned))
        self._answer()
        return returned

    # --- JobIndex ----------------------------------------------------------------------------------------------------

    async def get(self, job_ids: Sequence[JobId]) -> list[Job | None]:
        self._ask()
        return await self.behind.get(job_ids)

    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        self._ask()
        return await self.behind.page(status, cursor, limit)

    async def counts(self) -> dict[JobStatus, int]:
        self._ask()
        return await self.behind.counts()

    async def position(self, job_id: JobId) -> int | None:
        self._ask()
        return await self.behind.position(job_id)

    async def waiting(self, need: Need) -> int:
        self._ask()
        return await self.behind.waiting(need)

    async def cancel(self, job_id: JobId) -> Job:
        self._ask()
        job = await self.behind.cancel(job_id)
        self._ledger.looked({job_id: job}, "cancelled")
        self._answer()
        return job

    async def revive(self, job_id: JobId) -> Job:
        self._ask()
        job = await self.behind.revive(job_id)
        self._ledger.looked({job_id: job}, "revived", revived=True)
        self._answer()
        return job

    # --- JobUpkeep ---------------------------------------------------------------------------------------------------

    async def overdue(self, limit: int) -> list[Lease]:
        self._ask()
        leases = await self.behind.overdue(limit)
        self._ledger.overdue(leases)
        self._answer()
        return leases

    async def promote(self, limit: int) -> int:
        self._ask()
        promoted = await self.behind.promote(limit)
        self._ledger.looked(await self._look(self._ledger.set_back()), "its time has come")
        self._answer()
        return promoted

    async def expire(self, limit: int) -> Expired:
        self._ask()
        expired = await self.behind.expire(limit)
        self._ledger.looked(await self._look(job_id for job_id, _ in expired.jobs), "its deadline has passed")
        self._answer()
        return expired

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int:
        self._ask()
        return await self.behind.purge(ended_before_ms, keep_max, limit)

    async def classes(self) -> list[CapabilityClass]:
        self._ask()
        return await self.behind.classes()
