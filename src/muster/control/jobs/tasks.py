"""Tasks: jobs for a model that are either taken in at once or refused, by a bound on those that wait."""

from collections import Counter, OrderedDict

from msgspec import Struct

from muster.control.jobs.service import JobService
from muster.domain.job import Job, JobSpec
from muster.domain.model import canonical_model_name
from muster.errors import ModelNotAvailable, QueueFull
from muster.ids import JobId
from muster.jobs.matching import signature
from muster.ports import FleetView

POLICY = "reject_new"

_PACES_MAX = 1000
_NEWEST_SHARE = 0.2  # of a run among all runs of its kind
_RETRY_S = 1.0
_RETRY_S_MIN = 0.1


class Admitted(Struct, frozen=True, kw_only=True):
    """`queue_position` counts the jobs before it; `predicted_start_ms` is from now on, None: nothing is known yet.

    `created` is false for an id that was known: that job stands as it is.
    """

    task_id: JobId
    created: bool
    queue_position: int
    predicted_start_ms: int | None


class _Pace(Struct, frozen=True):
    """How fast tasks of one kind are done: time of one, and how many run at a time."""

    run_ms: float
    slots: int

    def ms_for(self, tasks: int) -> float:
        return tasks * self.run_ms / self.slots


class TaskDesk:
    """Equal needs (model, service, pins) share a line of at most `waiting_max`."""

    def __init__(self, jobs: JobService, fleet: FleetView, *, waiting_max: int) -> None:
        self._jobs = jobs
        self._fleet = fleet
        self._waiting_max = waiting_max
        self._entering: Counter[str] = Counter()  # by signature: counted in the store only once they are there
        self._paces: OrderedDict[str, _Pace] = OrderedDict()

    async def admit(self, spec: JobSpec) -> Admitted:
        """Raise ModelNotAvailable or QueueFull; then nothing was stored."""
        for model in spec.requirements.models:
            await self._check_model(model)
        kind = signature(spec.need)
        self._entering[kind] += 1
        try:
            before = await self._jobs.waiting(spec.need)
            if before + self._entering[kind] > self._waiting_max:
                raise self._full(kind)
            (submitted,) = await self._jobs.submit([spec])
        finally:
            self._entering[kind] -= 1
            if not self._entering[kind]:
                del self._entering[kind]
        position, pace = await self._jobs.position(submitted.job_id), self._paces.get(kind)
        return Admitted(
            task_id=submitted.job_id,
            created=submitted.created,
            queue_position=position or 0,
            predicted_start_ms=None if pace is None else round(pace.ms_for(before)),
        )

    def ended(self, job: Job) -> None:
        """Learn how long such tasks take."""
        started, completed = job.state.started_at, job.state.completed_at
        if started is None or completed is None:
            return
        kind, took_ms = signature(job.spec.need), max(0, completed - started)
        known = self._paces.get(kind)
        before_ms = took_ms if known is None else known.run_ms
        run_ms = before_ms + _NEWEST_SHARE * (took_ms - before_ms)
        self._paces[kind] = _Pace(run_ms, self._slots(job.spec))
        self._paces.move_to_end(kind)
        if len(self._paces) > _PACES_MAX:
            self._paces.popitem(last=False)

    async def _check_model(self, name: str) -> None:
        """Let a task wait for a model that somebody has, even if it is busy or away; for one of nobody's not."""
        if any(candidate.model(name) for candidate in self._fleet.candidates()):
            return
        wanted = canonical_model_name(name)
        for entry in await self._jobs.classes():
            if wanted in {canonical_model_name(model) for model in entry.capability.models}:
                return
        raise ModelNotAvailable(
            f"no node of this fleet has the model {name!r}; GET /v2/catalog/availability lists what there is",
            field="model",
        )

    def _full(self, kind: str) -> QueueFull:
        pace = self._paces.get(kind)
        return QueueFull(
            f"{self._waiting_max} tasks like this one wait already (setting task_waiting_max)",
            retry_after_s=_RETRY_S if pace is None else max(_RETRY_S_MIN, pace.ms_for(1) / 1000),
            policy_label=POLICY,
        )

    def _slots(self, spec: JobSpec) -> int:
        """How many may run at a time, by what the workers say of their services."""
        models = spec.requirements.models
        found = sum(
            candidate.slots or 1
            for candidate in self._fleet.candidates()
            if all(candidate.model(model) for model in models)
        )
        return max(1, found)
