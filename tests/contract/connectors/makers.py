import asyncio
from pathlib import Path
from typing import Any

from muster.domain.file import FileRef, media_type
from muster.domain.job import ClaimedJob, JobSpec, Progress
from muster.errors import NotFound
from muster.ids import JobId


def claimed(payload: Any, service: str = "openai", attempt: int = 1) -> ClaimedJob:
    spec = JobSpec(job_id=JobId("job-1"), service_required=service, payload=payload)
    return ClaimedJob(spec=spec, attempt=attempt, deadline_ms=0)


def unheard(_: Progress) -> None:
    """Take a report of progress that the test does not ask about."""


class NoJobFiles:
    """A JobFiles for jobs that have none."""

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        raise AssertionError(f"no file was expected, and {name} was kept")

    async def get(self, url: str, into: Path) -> int:
        raise AssertionError(f"no file was expected, and {url} was asked for")


NO_FILES = NoJobFiles()


class KeptFiles:
    """A JobFiles in memory; `given` are files that payloads may name."""

    def __init__(self, given: dict[str, bytes] | None = None) -> None:
        self.given = given or {}
        self.kept: dict[str, bytes] = {}
        self.puts = 0

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        content = data if isinstance(data, bytes) else await asyncio.to_thread(data.read_bytes)
        self.kept[name] = content
        self.puts += 1
        return FileRef(
            name=name, type=media_type(name), bytes=len(content), sha256="0" * 64, url=f"/api/files/job-1/1-{name}"
        )

    async def get(self, url: str, into: Path) -> int:
        if url not in self.given:
            raise NotFound(f"no file {url}")
        return await asyncio.to_thread(into.write_bytes, self.given[url])
