"""A service that needs no machine: work of any length, with progress and failures as ordered."""

import asyncio
from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.clock import Rng
from muster.connectors.payload import Checked, read_payload
from muster.connectors.streamed import so_far
from muster.domain.job import ClaimedJob, Progress
from muster.domain.service import Service, ServiceStatus
from muster.errors import MusterError
from muster.ports import JobFiles, ReportProgress

_DURATION_MS_MAX = 86_400_000
_STEPS_MAX = 10_000
_TEXT_CHARS_MAX = 100_000


class SimulatedError(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str = "simulated_failure"
    message: str = "this failure was ordered by the payload"
    retriable: bool = True


class SimulatedWork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`error` is what a failure looks like; given without a `fail_rate` it is certain.

    `text` grows with the steps, as a model's answer does; it is the result where none is given.
    """

    duration_ms: Annotated[float, Meta(ge=0, le=_DURATION_MS_MAX)] = 100
    steps: Annotated[int, Meta(ge=1, le=_STEPS_MAX)] = 5
    fail_rate: Annotated[float, Meta(ge=0, le=1)] | None = None
    result: Any = None
    error: SimulatedError | None = None
    text: Annotated[str, Meta(max_length=_TEXT_CHARS_MAX)] | None = None

    @property
    def failure_chance(self) -> float:
        if self.fail_rate is None:
            return 0.0 if self.error is None else 1.0
        return self.fail_rate


class SimulationConnector(Checked):
    name = "simulation"
    provides = ("simulation",)
    needs_service = False
    payload = SimulatedWork

    def __init__(self, rng: Rng) -> None:
        self._rng = rng

    async def probe(self, url: str) -> Service:
        return Service(name=self.name, connector=self.name, status=ServiceStatus.RUNNING, url=url or None)

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:  # noqa: ARG002 - the port's
        work = read_payload(job.spec.payload, SimulatedWork)
        fails = self._rng.random() < work.failure_chance
        now_s = asyncio.get_running_loop().time
        began_s, step_s = now_s(), work.duration_ms / 1000 / work.steps
        for step in range(1, work.steps + 1):
            # Towards a fixed time: timers are rounded up, which many short steps would add up.
            await asyncio.sleep(max(0.0, began_s + step * step_s - now_s()))
            report(_progress(work, step))
        if fails:
            raise _failure(work.error or SimulatedError())
        return {"text": work.text} if work.result is None and work.text is not None else work.result


def _progress(work: SimulatedWork, step: int) -> Progress:
    fraction, message = step / work.steps, f"step {step} of {work.steps}"
    if work.text is None:
        return Progress(fraction=fraction, message=message)
    return so_far(work.text[: len(work.text) * step // work.steps], fraction=fraction, message=message)


def _failure(error: SimulatedError) -> MusterError:
    class SimulatedFailure(MusterError):
        code = error.code
        retriable = error.retriable

    return SimulatedFailure(error.message)
