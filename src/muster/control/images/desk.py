"""Orders for pictures as jobs of the queue: put in line, waited for, withdrawn when nobody wants them any more."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import UnsetType

from muster.clock import Clock, Rng
from muster.control.images.models import ImageModels
from muster.control.jobs.service import JobService
from muster.domain.file import FileRef, parse_file_url
from muster.domain.image import ImageOrder, Made
from muster.domain.job import TERMINAL, Job, JobSpec, JobStatus
from muster.errors import (
    ImageModelBroken,
    InvalidInput,
    MusterError,
    NoWorker,
    QueueFull,
    StoreUnavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from muster.ids import JobId, new_id
from muster.images.output import pictures_of
from muster.images.workflow import SERVICE, ImageModel
from muster.ports import BlobStore

_LOOK_S = 0.25
_RETRY_S = 10.0  # a worker that comes back, or a place in line, is no matter of a second
_WITHDRAW_S = 5.0
_SEED_BITS = 48


class ImageDesk:
    """An ImageMaker and a Lifecycle. `files` opens where results lie, when the first is read.

    Who has not been begun with after `wait_s` is told so; all together may take `timeout_s`.
    """

    def __init__(
        self,
        models: ImageModels,
        jobs: JobService,
        files: Callable[[], BlobStore],
        clock: Clock,
        rng: Rng,
        *,
        waiting_max: int,
        wait_s: float,
        timeout_s: float,
    ) -> None:
        self._models = models
        self._jobs = jobs
        self._open_files = files
        self._files: BlobStore | None = None
        self._clock = clock
        self._rng = rng
        self._waiting_max = max(1, waiting_max)
        self._wait_s = min(wait_s, timeout_s)
        self._timeout_s = timeout_s
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._models.start()

    async def stop(self) -> None:
        await self._models.stop()
        await asyncio.gather(*self._withdrawals)

    # --- as ImageMaker ------------------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        return self._models.names()

    def has(self, model: str) -> bool:
        return self._models.has(model)

    async def make(self, order: ImageOrder) -> Made:
        model = self._models.get(order.model)
        model.check(order)
        specs = self._specs(model, order)
        await self._check_hope(specs[0])
        job_ids = [spec.job_id for spec in specs]
        try:
            await self._jobs.submit(specs, of_model=order.model)
            jobs = await self._ended(model, job_ids)
        except BaseException:
            self._withdraw(job_ids)
            raise
        of_each = order.n // len(jobs)  # all of the one, or one of each
        pictures = tuple(picture for job in jobs for picture in _pictures(job)[:of_each])
        if len(pictures) < order.n:
            raise ImageModelBroken(
                f"the workflow of {model.name} kept {len(pictures)} of {order.n} pictures: it needs a node that saves "
                "them, and {n} stands for how many it makes",
                field="model",
            )
        return Made(
            pictures=pictures,
            job_ids=tuple(job_ids),
            service=SERVICE,
            worker_id=jobs[0].state.worker_id,
            worked_ms=sum((job.state.completed_at or 0) - (job.state.started_at or 0) for job in jobs),
        )

    async def read(self, picture: FileRef) -> bytes:
        if self._files is None:
            self._files = self._open_files()
        owner, name = parse_file_url(picture.url)
        if await self._files.size(owner, name) is None:
            raise UpstreamFailed(
                f"{picture.url} is not kept here: several control planes need one file_store_url; ask for url instead"
            )
        return b"".join([chunk async for chunk in self._files.read(owner, name, 0, picture.bytes)])

    # --- one order ----------------------------------------------------------------------------------------------------

    def _specs(self, model: ImageModel, order: ImageOrder) -> list[JobSpec]:
        return [
            JobSpec(
                job_id=JobId(new_id("job", self._clock.now_ms(), self._rng)),
                service_required=SERVICE,
                payload=payload | {"preview": False},
                requirements=model.options.requirements,
                priority=order.priority,
                timeout_s=self._timeout_s,
                deadline_s=self._timeout_s,
                submitted_by=order.owner,
                correlation_id=order.correlation_id,
            )
            for payload in model.payloads(order, self._rng.getrandbits(_SEED_BITS))
        ]

    async def _check_hope(self, spec: JobSpec) -> None:
        """Refuse at once what nobody who is there can do, and who would stand too far behind."""
        reason = await self._jobs.why_unworkable(spec)
        if reason is not None:
            raise NoWorker(reason, field="model", retry_after_s=_RETRY_S)
        before = await self._jobs.waiting(spec.need)
        if before >= self._waiting_max:
            raise QueueFull(
                f"{before} jobs wait for a worker that makes such pictures (setting gateway_waiting_max): "
                "try again later",
                field="model",
                retry_after_s=_RETRY_S,
                policy_label="images",
            )

    async def _ended(self, model: ImageModel, job_ids: Sequence[JobId]) -> list[Job]:
        """Wait until all are completed; raise what became of the first that is not, or came to its deadline."""
        began_s = self._clock.monotonic_s()
        while True:
            jobs = await self._look(job_ids)
            for job in jobs:
                if job.state.status in TERMINAL - {JobStatus.COMPLETED}:
                    raise _problem(model, job)
            if len(jobs) == len(job_ids) and all(job.state.status in TERMINAL for job in jobs):
                return jobs
            waited_s = self._clock.monotonic_s() - began_s
            if waited_s >= self._timeout_s:
                raise _too_long(model, self._timeout_s)
            if waited_s >= self._wait_s and jobs and not any(job.state.attempt for job in jobs):
                told = await self._jobs.explain(job_ids[0])
                reason = f"{told.summary}; {told.remedy}" if told.remedy else told.summary
                raise NoWorker(
                    f"nobody began with it for {self._wait_s:g} s: {reason}", field="model", retry_after_s=_RETRY_S
                )
            await asyncio.sleep(_LOOK_S)

    async def _look(self, job_ids: Sequence[JobId]) -> list[Job]:
        try:
            return await self._jobs.get_many(job_ids)
        except StoreUnavailable:
            return []  # it comes back, and workers go on meanwhile

    def _withdraw(self, job_ids: Sequence[JobId]) -> None:
        """Cancel what has not ended; who waited may be gone, so this is nobody's wait."""
        task = asyncio.get_running_loop().create_task(self._cancel(job_ids), name="image jobs withdrawn")
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def _cancel(self, job_ids: Sequence[JobId]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_WITHDRAW_S):
                for job_id in job_ids:
                    with suppress(MusterError):  # it has ended, or never was; else its own deadline ends it
                        await self._jobs.cancel(job_id)


def _pictures(job: Job) -> Sequence[FileRef]:
    result = job.state.result
    return () if isinstance(result, UnsetType) else pictures_of(result)


def _too_long(model: ImageModel, limit_s: float) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"{model.name} was not ready after {limit_s:g} s (setting image_timeout_s): ask for less, or for fewer steps",
        retry_after_s=_RETRY_S,
    )


def _problem(model: ImageModel, job: Job) -> MusterError:
    """Say why a job did not come to its pictures. What is wrong with the graph no other try would mend."""
    state = job.state
    if state.status is JobStatus.TIMEOUT:
        return _too_long(model, job.spec.timeout_s)
    if state.status is JobStatus.CANCELLED:
        return UpstreamFailed(f"{job.job_id}, which made the picture, was cancelled")
    said = state.error.message if state.error else "the job failed without words"
    of_graph = state.error is not None and state.error.code == InvalidInput.code
    return InvalidInput(f"{model.name}: {said}") if of_graph else UpstreamFailed(f"{model.name}: {said}")
