"""One batch from its file to its answers, wherever an earlier life left it.

How far it is stands in its slices: the lines of one that is not done are submitted again, which changes nothing for
those that are known, for a job's id is made of its batch and line.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress

import structlog
from msgspec import Struct
from msgspec.structs import replace

from muster.batches import lines
from muster.batches.output import output_line
from muster.clock import Clock
from muster.control.files import FileService, StoredFile, lasting_owner
from muster.control.jobs.service import JobService
from muster.domain.batch import Batch, BatchStatus, KeptFile, LineError, Slice
from muster.domain.job import TERMINAL, Job, JobStatus
from muster.errors import InvalidTransition, JobNotFound, MusterError
from muster.ids import JobId

log = structlog.get_logger()

_JOBS_PER_READ = 20
_LOOK_S = 0.2  # at the room that there is
_CHECK_S = 10.0  # of jobs whose end nobody told us
_SAVE_S = 1.0
_OUTPUT, _ERRORS = "output", "errors"

Room = Callable[[str, str], bool]  # of a model and what it is to do: whether one more may be begun
Save = Callable[[Batch], Awaitable[None]]


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all runs share. `save` raises when it is no longer ours to do."""

    jobs: JobService
    files: FileService
    clock: Clock
    room: Room
    save: Save
    save_file: Callable[[KeptFile], Awaitable[None]]
    check: lines.CheckPayload
    line_bytes_max: int


class BatchRun:
    def __init__(self, batch: Batch, around: Surroundings) -> None:
        self.batch = batch
        self.open: dict[JobId, str] = {}  # submitted and not ended, with its model
        self._around = around
        self._ended = asyncio.Event()
        self._completed = self._failed = 0  # of slices that are not done
        self._saved_s = self._checked_s = around.clock.monotonic_s()

    def ask_cancel(self, at_ms: int) -> None:
        if self.batch.cancel_asked_ms is None:
            self.batch = replace(self.batch, cancel_asked_ms=at_ms)
            self._ended.set()

    def job_ended(self, job_id: JobId, *, completed: bool) -> None:
        if self.open.pop(job_id, None) is not None:
            self._completed += completed
            self._failed += not completed
            self._ended.set()

    async def give_up(self, error: MusterError) -> None:
        """End it where going on makes no sense; what its jobs have come to is in the list of jobs."""
        problem = LineError(code=error.code, message=error.message, param=error.field)
        await self._cancel_open()
        await self._become(BatchStatus.FAILED, errors=(problem,))

    async def run(self) -> None:
        if self.batch.status is BatchStatus.VALIDATING:
            await self._validate()
        if self.batch.status is BatchStatus.IN_PROGRESS:
            await self._work()
        if self.batch.status is BatchStatus.FINALIZING:
            await self._finish()

    # --- the file ----------------------------------------------------------------------------------------------------

    async def _validate(self) -> None:
        """Look at every line before anything is done; of what is wrong the first hundred are told."""
        errors: list[LineError] = []
        seen: set[str] = set()
        cutter = lines.Cutter()
        total = 0
        async for number, start, end, raw in self._lines(0, await self._input_bytes()):
            total += 1
            if total > lines.LINES_MAX:
                errors.append(LineError(code="too_many_tasks", message=f"a batch may have {lines.LINES_MAX} requests"))
                break
            try:
                request = self._read(raw, number)
            except lines.BadLine as error:
                errors.append(error.error)
            else:
                if request.custom_id in seen:
                    text = f"custom_id {request.custom_id[:100]!r} is used twice"
                    errors.append(LineError(code="duplicate_custom_id", message=text, line=number, param="custom_id"))
                seen.add(request.custom_id)
            cutter.add(number, start, end)
            if len(errors) >= lines.ERRORS_MAX:
                break
        if not total:
            errors.append(LineError(code="empty_file", message="the input file has no requests"))
        if errors:
            await self._become(BatchStatus.FAILED, errors=tuple(errors))
        else:
            await self._become(BatchStatus.IN_PROGRESS, slices=cutter.slices(), total=total)

    async def _input_bytes(self) -> int:
        return (await self._around.files.find(*self.batch.input_place)).bytes

    async def _lines(self, start: int, end: int, first_line: int = 1) -> AsyncIterator[tuple[int, int, int, bytes]]:
        owner, name = self.batch.input_place
        chunks = self._around.files.read(StoredFile(owner=owner, name=name, bytes=end), start, end)
        async for line in lines.lines_of(chunks, self._around.line_bytes_max, first_line):
            yield line

    async def _requests(self, of: Slice) -> AsyncIterator[tuple[JobId, int, lines.Request]]:
        async for number, _, _, raw in self._lines(of.start, of.end, of.first_line):
            yield lines.job_id_of(self.batch.batch_id, number), number, self._read(raw, number)

    def _read(self, raw: bytes, number: int) -> lines.Request:
        around = self._around
        return lines.read_request(raw, number, self.batch.endpoint, around.check, around.line_bytes_max)

    # --- the work ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Submit what there is room for, slice after slice, and collect each slice once all of it has ended."""
        collecting: list[int] = []
        for index, part in enumerate(self.batch.slices):
            if part.done:
                continue
            await self._feed(part)
            collecting = await self._collect_ended([*collecting, index])
            if self._ending is not BatchStatus.COMPLETED:
                break
        while collecting and self._ending is BatchStatus.COMPLETED:
            await self._wait()
            collecting = await self._collect_ended(collecting)
        if self._ending is not BatchStatus.COMPLETED:
            await self._cancel_open()
            for index, part in enumerate(self.batch.slices):
                if not part.done:
                    await self._collect(index)
        await self._become(BatchStatus.FINALIZING, ending=self._ending)

    @property
    def _ending(self) -> BatchStatus:
        if self.batch.cancel_asked_ms is not None:
            return BatchStatus.CANCELLED
        if self._around.clock.now_ms() >= self.batch.expires_at_ms:
            return BatchStatus.EXPIRED
        return BatchStatus.COMPLETED

    async def _feed(self, part: Slice) -> None:
        known = await self._known(part)
        async for job_id, number, request in self._requests(part):
            job = known.get(job_id)
            if job is not None and job.state.status in TERMINAL:
                self._count(job)
                continue
            while job is None and self._ending is BatchStatus.COMPLETED and not self._has_room(request):
                await self._wait()
            if self._ending is not BatchStatus.COMPLETED:
                return
            self.open[job_id] = request.model
            if job is None:
                window_s = (self.batch.expires_at_ms - self._around.clock.now_ms()) / 1000
                await self._around.jobs.submit([lines.job_of(self.batch, number, request, window_s)])

    async def _known(self, part: Slice) -> dict[JobId, Job]:
        """Return the jobs of a slice that an earlier life has submitted."""
        numbers = range(part.first_line, part.last_line + 1)
        ids = [lines.job_id_of(self.batch.batch_id, number) for number in numbers]
        return {job.job_id: job for job in await self._around.jobs.get_many(ids)}

    def _has_room(self, request: lines.Request) -> bool:
        capability = "embedding" if lines.KINDS[self.batch.endpoint] == "embedding" else "completion"
        return self._around.room(request.model, capability)

    async def _wait(self) -> None:
        """Until something ended, or for a moment."""
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._ended.wait()
        except TimeoutError:
            pass
        self._ended.clear()
        now_s = self._around.clock.monotonic_s()
        if now_s - self._checked_s >= _CHECK_S:
            self._checked_s = now_s
            await self._check_open()
        if now_s - self._saved_s >= _SAVE_S:
            await self._save_counts()

    async def _check_open(self) -> None:
        """Find what ended without our hearing of it; what is forgotten counts as ended."""
        ids = list(self.open)
        found = {job.job_id: job for job in await self._around.jobs.get_many(ids)}
        for job_id in ids:
            job = found.get(job_id)
            if job is None or job.state.status in TERMINAL:
                self.job_ended(job_id, completed=job is not None and _is_answer(job))

    def _count(self, job: Job) -> None:
        self._completed += _is_answer(job)
        self._failed += not _is_answer(job)

    async def _cancel_open(self) -> None:
        for job_id in list(self.open):
            with suppress(InvalidTransition, JobNotFound):  # it ended by itself
                await self._around.jobs.cancel(job_id)
        self.open.clear()

    # --- what came of it ---------------------------------------------------------------------------------------------

    async def _collect_ended(self, indexes: Collection[int]) -> list[int]:
        """Collect those slices of which nothing is open any more; return the others."""
        busy = {self._line_of(job_id) for job_id in self.open}
        left = []
        for index in indexes:
            part = self.batch.slices[index]
            if any(part.first_line <= line <= part.last_line for line in busy):
                left.append(index)
            else:
                await self._collect(index)
        return left

    @staticmethod
    def _line_of(job_id: JobId) -> int:
        return int(job_id.rpartition("-")[2])

    async def _collect(self, index: int) -> None:
        """Write the answers of a slice to a file of its own: doing it twice gives the same."""
        part = self.batch.slices[index]
        failed: list[bytes] = []
        completed = 0

        async def answers() -> AsyncIterator[bytes]:
            nonlocal completed
            async for line, is_answer in self._answers(part):
                if is_answer:
                    completed += 1
                    yield line
                else:
                    failed.append(line)

        async def errors() -> AsyncIterator[bytes]:
            for line in failed:
                yield line

        await self._keep_part(f"{_OUTPUT}-{index:05}", answers())
        await self._keep_part(f"{_ERRORS}-{index:05}", errors())
        done = replace(part, completed=completed, failed=len(failed))
        slices = (*self.batch.slices[:index], done, *self.batch.slices[index + 1 :])
        self.batch = replace(self.batch, slices=slices)
        self._completed -= min(self._completed, completed)
        self._failed -= min(self._failed, len(failed))
        await self._save_counts()

    async def _answers(self, part: Slice) -> AsyncIterator[tuple[bytes, bool]]:
        waiting: list[tuple[JobId, lines.Request]] = []

        async def told() -> AsyncIterator[tuple[bytes, bool]]:
            found = {job.job_id: job for job in await self._around.jobs.get_many([job_id for job_id, _ in waiting])}
            for job_id, request in waiting:
                yield output_line(job_id, request.custom_id, found.get(job_id), self._ending)
            waiting.clear()

        async for job_id, _, request in self._requests(part):
            waiting.append((job_id, request))
            if len(waiting) == _JOBS_PER_READ:
                async for line in told():
                    yield line
        async for line in told():
            yield line

    async def _keep_part(self, name: str, data: AsyncIterator[bytes]) -> StoredFile:
        return await self._around.files.keep(self.batch.owner, _parts_id(self.batch), name, data)

    async def _finish(self) -> None:
        """Put the parts together; a file without a line is not made."""
        batch = self.batch
        kept: dict[str, str | None] = {}
        for kind, count in ((_OUTPUT, batch.completed), (_ERRORS, batch.failed)):
            kept[kind] = await self._put_together(kind) if count else None
        await self._become(
            batch.ending or BatchStatus.COMPLETED, output_file_id=kept[_OUTPUT], error_file_id=kept[_ERRORS]
        )
        await self._around.files.forget(parts_of(batch))

    async def _put_together(self, kind: str) -> str:
        batch = self.batch
        file_id = f"file-{batch.batch_id.removeprefix('batch-')}-{kind}"
        name = f"{batch.batch_id}_{kind}.jsonl"
        stored = await self._around.files.keep(batch.owner, file_id, name, self._whole(kind))
        await self._around.save_file(
            KeptFile(
                file_id=file_id,
                place=(stored.owner, stored.name),
                filename=name,
                purpose="batch_output",
                bytes=stored.bytes,
                created_at_ms=self._around.clock.now_ms(),
                owner=batch.owner,
            )
        )
        return file_id

    async def _whole(self, kind: str) -> AsyncIterator[bytes]:
        files = self._around.files
        for index in range(len(self.batch.slices)):
            part = await files.find(parts_of(self.batch), f"{kind}-{index:05}")
            async for chunk in files.read(part, 0, part.bytes):
                yield chunk

    # --- keeping -----------------------------------------------------------------------------------------------------

    async def _become(self, status: BatchStatus, **fields: object) -> None:
        at_ms = self.batch.at_ms | {status.value: self._around.clock.now_ms()}
        self.batch = replace(self.batch, status=status, at_ms=at_ms, **fields)
        log.info("batch_moved_on", batch_id=self.batch.batch_id, status=status.value)
        await self._save_counts()

    async def _save_counts(self) -> None:
        done = [part for part in self.batch.slices if part.done]
        completed = sum(part.completed for part in done) + self._completed
        failed = sum(part.failed for part in done) + self._failed
        self._saved_s = self._around.clock.monotonic_s()
        changed = replace(self.batch, completed=completed, failed=failed)
        self.batch = changed
        await self._around.save(changed)


def parts_of(batch: Batch) -> str:
    """Return under which owner the answers of single slices are kept."""
    return lasting_owner(batch.owner, _parts_id(batch))


def _is_answer(job: Job) -> bool:
    return job.state.status is JobStatus.COMPLETED


def _parts_id(batch: Batch) -> str:
    return f"{batch.batch_id}-parts"
