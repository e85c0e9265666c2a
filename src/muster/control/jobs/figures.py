"""What became of jobs that came by this control plane: counts and times, cheap enough to keep for every attempt."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from muster.domain.job import ClaimedJob, JobStatus, Settlement
from muster.ids import JobId
from muster.metrics import JOB_ATTEMPTS, JOB_RUN, JOB_WAIT, JOBS_SUBMITTED, Histogram, Metric

_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0)
_QUEUES_MAX = 100  # names are given by those who submit
_RUNNING_MAX = 50_000  # attempts whose begin is remembered; of one that is forgotten the time is not known
_FIRST_ATTEMPT = 1


class JobFigures:
    def __init__(self) -> None:
        self.submitted = 0
        self.outcomes: Counter[str] = Counter()
        self._wait = Histogram(_BOUNDS_S, _QUEUES_MAX)
        self._run = Histogram(_BOUNDS_S, _QUEUES_MAX)
        self._begun: dict[tuple[JobId, int], tuple[float, str]] = {}

    def claimed(self, jobs: Sequence[ClaimedJob], now_ms: int, now_s: float) -> None:
        begun, waited = self._begun, self._wait.observe
        for job in jobs:
            spec = job.spec
            service = spec.service_required
            if job.attempt == _FIRST_ATTEMPT:
                since_ms = spec.created_at if spec.run_at is None else max(spec.created_at, spec.run_at)
                waited((now_ms - since_ms) / 1000, service)
            begun[spec.job_id, job.attempt] = (now_s, service)
        while len(begun) > _RUNNING_MAX:
            del begun[next(iter(begun))]

    def settled(self, settlements: Sequence[Settlement], refused: Collection[JobId], now_s: float) -> None:
        outcomes, forget, ran = self.outcomes, self._begun.pop, self._run.observe
        for settlement in settlements:
            begun = forget((settlement.job_id, settlement.attempt), None)
            if refused and settlement.job_id in refused:
                outcomes["refused"] += 1
                continue
            outcomes[_outcome(settlement)] += 1
            if begun is not None:
                ran(now_s - begun[0], begun[1])

    def metrics(self) -> Iterator[Metric]:
        yield JOBS_SUBMITTED.single(self.submitted)
        yield JOB_ATTEMPTS.of({(outcome,): count for outcome, count in self.outcomes.items()})
        yield self._wait.metric(JOB_WAIT)
        yield self._run.metric(JOB_RUN)


def _outcome(settlement: Settlement) -> str:
    if settlement.status is not JobStatus.PENDING:
        return settlement.status
    return "retried" if settlement.counts else "returned"
