from typing import Any

from muster.domain.job import ClaimedJob, JobSpec, Progress
from muster.ids import JobId


def claimed(payload: Any, service: str = "openai") -> ClaimedJob:
    return ClaimedJob(
        spec=JobSpec(job_id=JobId("job-1"), service_required=service, payload=payload), attempt=1, deadline_ms=0
    )


def unheard(_: Progress) -> None:
    """Take a report of progress that the test does not ask about."""
