from muster.control.jobs.figures import JobFigures
from muster.domain.job import ClaimedJob, JobSpec, JobStatus, Settlement
from muster.ids import JobId
from muster.metrics import Sample


def claimed(job_id: str = "j", attempt: int = 1, **fields: object) -> ClaimedJob:
    base: dict[str, object] = {"job_id": JobId(job_id), "service_required": "simulation", "created_at": 1000}
    spec = JobSpec(**(base | fields))  # type: ignore[arg-type]  # a test's own shorthand
    return ClaimedJob(spec=spec, attempt=attempt, deadline_ms=0)


def ended(status: JobStatus, job_id: str = "j", attempt: int = 1, *, counts: bool = True) -> Settlement:
    return Settlement(job_id=JobId(job_id), attempt=attempt, status=status, counts=counts)


def totals(figures: JobFigures, name: str) -> list[Sample]:
    (metric,) = [metric for metric in figures.metrics() if metric.family.name == name]
    return [sample for sample in metric.samples if sample[0] in {"_sum", "_count", ""}]


def test_the_wait_is_from_submit_or_its_time_to_the_first_claim() -> None:
    figures = JobFigures()
    figures.claimed([claimed("a"), claimed("b", run_at=3000), claimed("c", attempt=2)], 4000, 0.0)

    assert totals(figures, "muster_job_wait_seconds") == [
        ("_sum", ("simulation",), 4.0),
        ("_count", ("simulation",), 2),
    ]


def test_the_run_is_from_a_claim_to_its_outcome_seen_here() -> None:
    figures = JobFigures()
    figures.claimed([claimed("a"), claimed("b")], 4000, 10.0)
    done = [ended(JobStatus.COMPLETED, "a"), ended(JobStatus.COMPLETED, "b", 7), ended(JobStatus.FAILED, "elsewhere")]
    figures.settled(done, (), 12.5)

    assert totals(figures, "muster_job_run_seconds") == [("_sum", ("simulation",), 2.5), ("_count", ("simulation",), 1)]


def test_outcomes_are_told_apart_and_what_came_too_late_counts_as_that_only() -> None:
    figures = JobFigures()
    outcomes = [
        ended(JobStatus.COMPLETED),
        ended(JobStatus.PENDING),
        ended(JobStatus.PENDING, counts=False),
        ended(JobStatus.FAILED),
        ended(JobStatus.TIMEOUT),
        ended(JobStatus.COMPLETED, "late"),
    ]
    figures.settled(outcomes, (JobId("late"),), 0.0)

    assert {labels[0]: value for _, labels, value in totals(figures, "muster_job_attempts_total")} == dict.fromkeys(
        ("completed", "retried", "returned", "failed", "timeout", "refused"), 1
    )


def test_attempts_that_never_end_are_forgotten_in_time() -> None:
    figures = JobFigures()
    figures.claimed([claimed(f"j{number}") for number in range(50_001)], 0, 0.0)
    figures.settled([ended(JobStatus.COMPLETED, "j0"), ended(JobStatus.COMPLETED, "j50000")], (), 1.0)

    assert ("_count", ("simulation",), 1) in totals(figures, "muster_job_run_seconds")
