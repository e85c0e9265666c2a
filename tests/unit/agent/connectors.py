"""Connectors that do as a test says."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from muster.domain.job import ClaimedJob, Progress
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed
from muster.ports import JobFiles, ReportProgress
from tests.unit.agent.virtual_time import time_passes

Behaviour = Callable[[ClaimedJob, Service | None, ReportProgress], Awaitable[Any]]


async def echo(job: ClaimedJob, _: Service | None, __: ReportProgress) -> Any:
    return {"echo": job.spec.payload}


async def take_payload_seconds(job: ClaimedJob, _: Service | None, report: ReportProgress) -> Any:
    """Run for as many seconds as the payload says, telling progress at each quarter."""
    for quarter in range(4):
        await time_passes(job.spec.payload / 4)
        report(Progress(fraction=(quarter + 1) / 4))
    return job.spec.payload


class FakeConnector:
    def __init__(self, name: str = "work", behaviour: Behaviour = echo, *, needs_service: bool = False) -> None:
        self._name = name
        self._needs_service = needs_service
        self.behaviour = behaviour
        self.running: Counter[str] = Counter()
        self.most_at_once = 0
        self.runs: list[tuple[str, int]] = []
        self.services: list[str | None] = []
        self.alive: dict[str, Service] = {}  # by url

    @property
    def name(self) -> str:
        return self._name

    @property
    def provides(self) -> tuple[str, ...]:
        return (self._name,)

    @property
    def needs_service(self) -> bool:
        return self._needs_service

    def serve(self, url: str, *models: str, slots: int | None = None) -> None:
        self.alive[url] = Service(
            name="as the server calls itself",
            connector=self._name,
            status=ServiceStatus.RUNNING,
            url=url,
            models=tuple(Model(name=model) for model in models),
            slots=slots,
        )

    async def probe(self, url: str) -> Service:
        if url not in self.alive:
            raise UpstreamFailed(f"{url} does not answer")
        return self.alive[url]

    def check(self, payload: Any) -> None:
        pass

    def schema(self) -> dict[str, Any]:
        return {}

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        self.files = files
        job_id = job.spec.job_id
        self.runs.append((job_id, job.attempt))
        self.services.append(service.name if service else None)
        self.running[job_id] += 1
        self.most_at_once = max(self.most_at_once, self.running.total())
        try:
            return await self.behaviour(job, service, report)
        finally:
            self.running[job_id] -= 1
