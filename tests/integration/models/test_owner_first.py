"""A machine that is its owner's first: when a listed program starts its work drains, and returns when it ends."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

from muster.agent.owner.rules import OwnerRules
from muster.domain.job import ClaimedJob, JobStatus
from muster.domain.node import Health
from muster.domain.residency import ModelPolicy
from muster.domain.service import Service, ServiceStatus
from muster.ports import JobFiles, ReportProgress
from muster.system import die_with_parent
from tests.integration.models.engines import MadeOllama
from tests.integration.models.whole import Whole
from tests.waiting import eventually

GAME = "muster-game"
RULES = OwnerRules(processes=("other-game", GAME), grace_s=0.2, return_after_s=0.2, look_every_s=0.05)


class Work:
    """Work that ends when it is told to."""

    name = "work"
    provides = ("work",)
    needs_service = False

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.runs = 0

    async def probe(self, url: str) -> Service:
        return Service(name="work", connector="work", status=ServiceStatus.RUNNING, url=url)

    def check(self, payload: Any) -> None:
        pass

    def schema(self) -> dict[str, Any]:
        return {}

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        self.runs += 1
        await self.open.wait()
        return "done"


async def test_the_machine_is_yielded_to_a_program_and_taken_again(fleet: Whole, tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    game = shutil.copy(sleep, tmp_path / GAME)
    work = Work()
    async with MadeOllama(4000, small=1000).running() as ollama:
        agent = await fleet.add(
            "a",
            connectors=fleet.connectors() | {"work": work},
            attach=(("ollama", ollama.url),),
            model_policy=ModelPolicy(),
            owner=RULES,
        )
        await eventually(lambda: fleet.model("a", "small"))
        assert (await fleet.chat("small"))[0] == 200
        job_id = await fleet.submit("work", {})
        await eventually(lambda: work.runs == 1)

        process = await asyncio.to_thread(
            lambda: subprocess.Popen([game, "600"], preexec_fn=die_with_parent())  # noqa: PLW1509 - one call
        )
        try:
            await eventually(lambda: fleet.node("a").reason == f"yielding to {GAME}")
            assert fleet.node("a").health is Health.HEALTHY
            await eventually(lambda: ollama.loaded == {} and fleet.resident("a") == set())
            (returned,) = await fleet.heard("machine_yielded")
            assert returned == {"to": GAME, "jobs_returned": 1}

            async def waits() -> bool:
                (job,) = await fleet.jobs.get_many([job_id])
                return job.state.status is JobStatus.PENDING and job.state.retry_count == 0

            await eventually(waits)
            status, text = await fleet.chat("small")
            assert status == 503
            assert f"yielding to {GAME}" in text
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

        work.open.set()

        async def done() -> bool:
            (job,) = await fleet.jobs.get_many([job_id])
            return job.state.status is JobStatus.COMPLETED

        await eventually(done)
        await eventually(lambda: fleet.node("a").reason is None)
        assert work.runs == 2
        await agent.stop()
