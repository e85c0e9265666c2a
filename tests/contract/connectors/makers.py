from pathlib import Path
from typing import Any

from muster.domain.file import FileRef
from muster.domain.job import ClaimedJob, JobSpec, Progress
from muster.ids import JobId


def claimed(payload: Any, service: str = "openai") -> ClaimedJob:
    return ClaimedJob(
        spec=JobSpec(job_id=JobId("job-1"), service_required=service, payload=payload), attempt=1, deadline_ms=0
    )


def unheard(_: Progress) -> None:
    """Take a report of progress that the test does not ask about."""


class NoJobFiles:
    """A JobFiles for jobs that have none."""

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        raise AssertionError(f"no file was expected, and {name} was kept")

    async def get(self, url: str, into: Path) -> int:
        raise AssertionError(f"no file was expected, and {url} was asked for")


NO_FILES = NoJobFiles()
