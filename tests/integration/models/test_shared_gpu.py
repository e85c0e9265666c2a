"""A language model and an image workload on one GPU: one lets go before the other starts, and who waits hears why."""

import asyncio
from typing import Any

from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.domain.job import ClaimedJob, JobStatus
from muster.domain.residency import ModelPolicy
from muster.domain.service import Service
from muster.ports import JobFiles, ReportProgress
from tests.integration.models.engines import MadeComfy, MadeOllama
from tests.integration.models.whole import Whole
from tests.waiting import eventually

SHARED = ModelPolicy(share_gpu=("ollama", "comfyui"))


class Painter(ComfyUIConnector):
    """Paints until `open` is set, and notes what the language model had in memory meanwhile."""

    def __init__(self, session: Any, ollama: MadeOllama) -> None:
        super().__init__(session)
        self.ollama = ollama
        self.open = asyncio.Event()
        self.beside: list[list[str]] = []

    @classmethod
    def check(cls, payload: Any) -> None:
        pass

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        assert service is not None
        self.beside.append(list(self.ollama.loaded))
        await self.open.wait()
        return {"painted": job.spec.payload, "files": files is not None, "report": report is not None}


async def test_one_lets_go_before_the_other_starts(fleet: Whole) -> None:
    async with MadeOllama(4000, small=1000).running() as ollama, MadeComfy().running() as comfy:
        painter = Painter(fleet.session, ollama)
        agent = await fleet.add(
            "a",
            connectors=fleet.connectors() | {"comfyui": painter},
            attach=(("ollama", ollama.url), ("comfyui", comfy.url)),
            model_policy=SHARED,
        )
        await eventually(lambda: fleet.model("a", "small"))
        assert (await fleet.chat("small"))[0] == 200

        job_id = await fleet.submit("comfyui", {"picture": 1})

        async def message() -> str | None:
            (job,) = await fleet.jobs.get_many([job_id])
            return job.state.progress.message if job.state.progress else None

        async def waits() -> bool:
            return await message() == "waits for the GPUs: ollama answers with small"

        await eventually(waits)
        await agent._residency.unload({"model": "small"}, lambda _: None)  # or its turn would last some seconds more
        await eventually(lambda: painter.beside == [[]])
        await eventually(lambda: fleet.resident("a") == set())

        chat = asyncio.create_task(fleet.chat("small", stream=True))
        await eventually(lambda: fleet.loader.why("small") == f"waits for the GPUs: comfyui runs job {job_id}")
        assert ollama.loaded == {}
        freed = comfy.freed
        painter.open.set()
        status, text = await chat
        assert status == 200
        assert "small says so" in text
        assert f": small waits for the GPUs: comfyui runs job {job_id}" in text
        assert comfy.freed > freed

        async def done() -> bool:
            (job,) = await fleet.jobs.get_many([job_id])
            return job.state.status is JobStatus.COMPLETED

        await eventually(done)
        await agent.stop()
