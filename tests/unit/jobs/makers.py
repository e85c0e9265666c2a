"""Jobs and leases for the tests of the job rules."""

from typing import Any

from muster.domain.job import Job, JobSpec, JobState, Lease
from muster.ids import JobId, SessionId, WorkerId

WORKER = WorkerId("gpu-1-worker-0")


def spec(**fields: Any) -> JobSpec:
    return JobSpec(**({"job_id": JobId("job-1"), "service_required": "comfyui"} | fields))


def job(wanted: JobSpec | None = None, **state: Any) -> Job:
    return Job(spec=wanted or spec(), state=JobState(**state))


def lease(expired: str, *, retry_count: int = 0, **fields: Any) -> Lease:
    return Lease(
        spec=spec(**fields),
        attempt=retry_count + 1,
        retry_count=retry_count,
        worker_id=WORKER,
        session_id=SessionId("session-1"),
        expired=expired,
    )
