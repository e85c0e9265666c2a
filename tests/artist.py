"""A worker for ComfyUI's jobs that does as a test says, and image models for it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from muster.domain.capability import Capability
from muster.domain.file import FileRef
from muster.domain.job import ClaimedJob, JobError, encode_result
from muster.ids import NodeId, SessionId, WorkerId
from muster.wire import OpenSession, Outcome, OutcomeKind
from tests.planes import PlaneUnderTest
from tests.waiting import eventually

CHECKPOINT = "sd.safetensors"
SESSION, NODE = "comfy", "n1"


def workflow(*, batch: bool = False, **options: Any) -> dict[str, Any]:
    """Return a small file: with `batch` one prompt makes all pictures."""
    latent = {"width": "{width=512}", "height": "{height=512}"} | ({"batch_size": "{n}"} if batch else {})
    return {
        "muster": options,
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "5": {"class_type": "EmptyLatentImage", "inputs": latent},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "seed": "{seed}"}},
    }


def write_model(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


class Artist:
    def __init__(self, plane: PlaneUnderTest) -> None:
        self._plane = plane

    async def come(self, *models: str) -> None:
        await self._plane.jobs.open_session(
            OpenSession(
                node_id=NodeId(NODE),
                worker_id=WorkerId(f"{NODE}-worker-0"),
                session_id=SessionId(SESSION),
                capability=Capability(services=("comfyui",), models=models or (CHECKPOINT,)),
            )
        )

    async def take(self, count: int = 1) -> list[ClaimedJob]:
        """Wait until there are so many jobs, and begin with them."""
        taken: list[ClaimedJob] = []

        async def enough() -> bool:
            reply = await self._plane.claim(SESSION, NODE, want=count - len(taken))
            taken.extend(reply.jobs)
            return len(taken) == count

        await eventually(enough)
        return taken

    async def done(self, job: ClaimedJob, *pictures: bytes) -> None:
        kept = [
            await self._plane.files.put_file(job.spec.job_id, job.attempt, f"{number}.png", _once(data))
            for number, data in enumerate(pictures)
        ]
        await self.done_with(job, *kept)

    async def done_with(self, job: ClaimedJob, *kept: FileRef) -> None:
        await self._tell(
            Outcome(
                job_id=job.spec.job_id,
                attempt=job.attempt,
                kind=OutcomeKind.COMPLETED,
                result=encode_result({"prompt_id": "p", "outputs": {"9": {"images": kept}}}),
            )
        )

    async def fail(self, job: ClaimedJob, code: str, message: str) -> None:
        error = JobError(code=code, message=message, retriable=False)
        await self._tell(Outcome(job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.FAILED, error=error))

    async def _tell(self, outcome: Outcome) -> None:
        await self._plane.claim(SESSION, NODE, want=0, done=(outcome,))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
