"""Which engines jobs keep at work, to the moment: for the gateway, which asks the same engines.

A job is counted by the control plane that gave it out, when it does; the others hear of it (`gateway_load.py`). That it
is over is known when its worker says so, else from the log. Ends that nobody told are found by looking at what is
counted now and then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from muster.domain.event import LoggedEvent
from muster.domain.job import ACTIVE, ClaimedJob
from muster.ids import JobId, NodeId, WorkerId
from muster.placement.at_work import engine_of
from muster.placement.candidate import Candidate
from muster.ports import JobIndex
from muster.rounds import Rounds

_LOOK_EVERY_S = 15.0
_ENDS = frozenset({"job_completed", "job_failed", "job_retrying", "job_returned", "job_timeout", "job_cancelled"})

EnginesAt = Callable[[NodeId], Sequence[Candidate]]
Changed = Callable[[Mapping[str, int]], None]


class _Running(Struct, frozen=True):
    attempt: int
    engine: str


class EngineJobs:
    """A Lifecycle and an AttemptWatcher. `counts` are by candidate key."""

    def __init__(self, engines_at: EnginesAt, index: JobIndex) -> None:
        self._engines_at = engines_at
        self._index = index
        self._running: dict[JobId, _Running] = {}
        self._changed: Changed = lambda _: None
        self._rounds = Rounds()
        self.counts: dict[str, int] = {}

    async def start(self) -> None:
        self._rounds.go("engine_jobs", self.look, _LOOK_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    def on_change(self, listener: Changed) -> None:
        """Be told by how much each count has changed."""
        self._changed = listener

    def began(self, worker_id: WorkerId, jobs: Sequence[ClaimedJob]) -> None:
        engines = self._engines_at(NodeId(worker_id.rpartition("-worker-")[0])) if jobs else ()
        if not engines:
            return
        for job in jobs:
            spec = job.spec
            engine = engine_of(spec.service_required, spec.requirements.models, engines, self.counts)
            if engine is not None:
                self._forget(spec.job_id)
                self._running[spec.job_id] = _Running(job.attempt, engine.key)
                self._count(engine.key, 1)

    def ended(self, attempts: Iterable[tuple[JobId, int]]) -> None:
        for job_id, attempt in attempts:
            running = self._running.get(job_id)
            if running is not None and running.attempt <= attempt:
                self._forget(job_id)

    def hear(self, entries: Iterable[LoggedEvent]) -> None:
        """Look in the log for ends that came about elsewhere."""
        if not self._running:
            return
        for entry in entries:
            event = entry.event
            if event.kind in _ENDS:
                ids = event.ids or (event.key,)
                self.ended(zip(map(JobId, ids), event.data.get("attempts", ()), strict=False))

    async def look(self) -> None:
        """Forget what is over without a word."""
        known = dict(self._running)
        for (job_id, running), job in zip(known.items(), await self._index.get(list(known)), strict=True):
            if job is None or job.state.status not in ACTIVE or job.state.attempt != running.attempt:
                self.ended([(job_id, running.attempt)])

    def _forget(self, job_id: JobId) -> None:
        running = self._running.pop(job_id, None)
        if running is not None:
            self._count(running.engine, -1)

    def _count(self, engine: str, by: int) -> None:
        left = self.counts.get(engine, 0) + by
        if left:
            self.counts[engine] = left
        else:
            del self.counts[engine]
        self._changed({engine: by})
