"""The one ticker of the control plane: silence of nodes, leases that ran out, retries whose time has come.

Of several control planes one leads and does what is to be done once; every one looks for nodes that are late.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from muster.clock import Clock, Rng
from muster.control.fleet.fleet import Fleet
from muster.control.jobs.service import OnStop
from muster.jobs.retry import RetryPolicy, settle_lease
from muster.ports import JobQueue, JobUpkeep
from muster.rounds import Rounds

log = structlog.get_logger()

_BATCH = 500
_PURGE_EVERY_S = 30.0


class Sweep:
    """A Lifecycle. Every step is safe to repeat and fenced in the store, should two ever think that they lead."""

    def __init__(
        self,
        fleet: Fleet,
        queue: JobQueue,
        upkeep: JobUpkeep,
        clock: Clock,
        rng: Rng,
        *,
        every_s: float,
        retry_policy: RetryPolicy,
        retention_s: float,
        ended_max: int,
        patience_s: float = 0.0,
        also: Sequence[Callable[[], Awaitable[None]]] = (),
        leads: Callable[[], bool] = lambda: True,
        stop_running: OnStop | None = None,
    ) -> None:
        """Leave leases alone for `patience_s` after a start, a change of leader, or while we may not hear.

        Our own absence may have kept workers from renewing them. `also` is done with each sweep of the leader.
        `stop_running` is told of jobs that were ended while they ran.
        """
        self._fleet = fleet
        self._queue = queue
        self._upkeep = upkeep
        self._clock = clock
        self._rng = rng
        self._every_s = every_s
        self._policy = retry_policy
        self._retention_s = retention_s
        self._ended_max = ended_max
        self._patience_s = patience_s
        self._also = also
        self._leads = leads
        self._stop_running = stop_running
        self._patient_until_s = clock.monotonic_s()
        self._purge_at_s = clock.monotonic_s() + _PURGE_EVERY_S
        self._rounds = Rounds()
        self.leases_lost: Counter[str] = Counter()

    async def start(self) -> None:
        if not self._rounds:
            self._patient_until_s = self._clock.monotonic_s() + self._patience_s
            self._rounds.go("sweep", self._run, 0)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _run(self) -> None:
        await asyncio.sleep(self._every_s)
        await self.sweep()

    async def sweep(self) -> None:
        leads = self._leads()
        self._fleet.tick(judging=leads)
        if not leads or not self._fleet.judges:
            self._patient_until_s = self._clock.monotonic_s() + self._patience_s
        for step in (self.sweep_jobs, *self._also):
            if self._leads():
                await step()

    async def sweep_jobs(self) -> None:
        if self._clock.monotonic_s() >= self._patient_until_s:
            await self._end_leases()
        await self._end_late_jobs()
        while await self._upkeep.promote(_BATCH) == _BATCH:
            pass
        if self._clock.monotonic_s() >= self._purge_at_s:
            self._purge_at_s = self._clock.monotonic_s() + _PURGE_EVERY_S
            before_ms = self._clock.now_ms() - round(self._retention_s * 1000)
            while await self._upkeep.purge(before_ms, self._ended_max, _BATCH) == _BATCH:
                pass

    async def _end_late_jobs(self) -> None:
        """End jobs whose own deadline has passed."""
        while self._leads():
            expired = await self._upkeep.expire(_BATCH)
            for job_id, worker_id in expired.jobs:
                log.warning("job_deadline_passed", job_id=job_id, worker=worker_id)
                if worker_id is not None and self._stop_running is not None:
                    await self._stop_running(job_id, worker_id)
            if not expired.more:
                break

    async def _end_leases(self) -> None:
        while self._leads() and (leases := await self._upkeep.overdue(_BATCH)):
            now_ms = self._clock.now_ms()
            settled = await self._queue.settle(
                [settle_lease(lease, self._policy, now_ms, self._rng) for lease in leases]
            )
            for lease, accepted in zip(leases, settled, strict=True):
                if accepted:
                    self.leases_lost[lease.expired] += 1
                    log.warning("lease_expired", job_id=lease.spec.job_id, worker=lease.worker_id, why=lease.expired)
            if len(leases) < _BATCH or not any(settled):
                break
