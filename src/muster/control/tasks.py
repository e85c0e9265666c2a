"""Tasks: jobs for a model that are either taken in at once or refused, by a bound on those that wait."""

from collections import Counter, OrderedDict

from msgspec import Struct

from muster.control.job_service import JobService
from muster.domain.job import Job, JobSpec
from muster.domain.model import canonical_model_name
from muster.errors import ModelNotAvailable, QueueFull
from muster.jobs.matching import signature
from muster.ports import FleetView

POLICY = "reject_new"

_RUNS_KNOWN_MAX = 1000
_NEWEST_SHARE = 0.2  # of a run among all runs of its kind
_RETRY_S = 1.0
_RETRY_S_MIN = 0.1


class Admitted(Struct, frozen=True, kw_only=True):
    """`queue_position` counts the jobs before it; `predicted_start_ms` is from now on, None: nothing is known yet."""

    task_id: str
    queue_position: int
    predicted_start_ms: int | None


class TaskDesk:
    """Equal needs (model, service, pins) share a line of at most `waiting_max`."""

    def __init__(self, jobs: JobService, fleet: FleetView, *, waiting_max: int) -> None:
        self._jobs = jobs
        self._fleet = fleet
        self._waiting_max = waiting_max
        self._entering: Counter[str] = Counter()  # by signature: counted in the store only once they are there
        self._run_ms: OrderedDict[str, float] = OrderedDict()

    async def admit(self, spec: JobSpec) -> Admitted:
        """Raise ModelNotAvailable or QueueFull; then nothing was stored."""
        for model in spec.requirements.models:
            await self._check_model(model)
        kind = signature(spec.need)
        self._entering[kind] += 1
        try:
            before = await self._jobs.waiting(spec.need)
            if before + self._entering[kind] > self._waiting_max:
                raise self._full(spec, kind)
            (submitted,) = await self._jobs.submit([spec])
        finally:
            self._entering[kind] -= 1
            if not self._entering[kind]:
                del self._entering[kind]
        position = await self._jobs.position(submitted.job_id)
        return Admitted(
            task_id=submitted.job_id,
            queue_position=position or 0,
            predicted_start_ms=self._predicted_ms(spec, kind, before),
        )

    def ended(self, job: Job) -> None:
        """Learn how long such tasks take."""
        started, completed = job.state.started_at, job.state.completed_at
        if started is None or completed is None:
            return
        kind, took_ms = signature(job.spec.need), max(0, completed - started)
        known = self._run_ms.get(kind, took_ms)
        self._run_ms[kind] = known + _NEWEST_SHARE * (took_ms - known)
        self._run_ms.move_to_end(kind)
        if len(self._run_ms) > _RUNS_KNOWN_MAX:
            self._run_ms.popitem(last=False)

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

    def _predicted_ms(self, spec: JobSpec, kind: str, before: int) -> int | None:
        run_ms = self._run_ms.get(kind)
        return None if run_ms is None else round(before * run_ms / self._slots(spec))

    def _full(self, spec: JobSpec, kind: str) -> QueueFull:
        run_ms = self._run_ms.get(kind)
        wait_s = _RETRY_S if run_ms is None else max(_RETRY_S_MIN, run_ms / self._slots(spec) / 1000)
        return QueueFull(
            f"{self._waiting_max} tasks like this one wait already (setting task_waiting_max)",
            retry_after_s=wait_s,
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
