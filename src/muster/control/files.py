"""Files between people, workers and where they are kept: who may write and read what, how large, and for how long.

There is no list of them: the owner in a file's address is the job that made it, or `~TOKEN~ID` for what a person sent.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress

import structlog
from msgspec import Struct

from muster.access.book import Caller
from muster.clock import Clock, Rng
from muster.control.jobs.service import JobService
from muster.domain.file import FileRef, check_file_name, file_url, media_type, parse_file_url
from muster.domain.job import ACTIVE, Job
from muster.errors import Conflict, FilesFull, Forbidden, JobNotFound, NotFound, PayloadTooLarge
from muster.ids import JobId, new_id
from muster.ports import BlobStore
from muster.rounds import Rounds

log = structlog.get_logger()

_SENT = "~"  # begins the owner of what a person sent; no job's id can
_LASTING = ":"  # ends the owner of what stays until somebody forgets it
_SWEEP_EVERY_S = 60.0
_GRACE_MS = 60_000  # a job that was submitted a moment ago may not be seen yet
_BATCH = 500


class StoredFile(Struct, frozen=True, kw_only=True):
    owner: str
    name: str
    bytes: int

    @property
    def type(self) -> str:
        return media_type(self.name)


def lasting_owner(of: str | None, lasting_id: str) -> str:
    """Return under which owner somebody's files are kept until they are forgotten."""
    return f"{_SENT}{of or ''}{_SENT}{lasting_id}{_LASTING}"


class FileService:
    """A FileLink for workers in this process, a Lifecycle, and what the API offers to people and agents."""

    def __init__(
        self,
        blobs: BlobStore,
        jobs: JobService,
        clock: Clock,
        rng: Rng,
        *,
        file_bytes_max: int,
        files_bytes_max: int,
        retention_s: float,
    ) -> None:
        self._blobs = blobs
        self._jobs = jobs
        self._clock = clock
        self._rng = rng
        self._file_bytes_max = file_bytes_max
        self._files_bytes_max = files_bytes_max
        self._retention_ms = round(retention_s * 1000)
        self._total_bytes = 0  # by the last sweep, and what came since
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("file_sweep", self.sweep, _SWEEP_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    @property
    def total_bytes(self) -> int:
        """Return how much is kept, by the last sweep and what came here since."""
        return self._total_bytes

    # --- for attempts -------------------------------------------------------------------------------------------------

    async def put_file(
        self,
        job_id: JobId,
        attempt: int,
        name: str,
        data: AsyncIterable[bytes],
        *,
        check_node: Callable[[str], None] = lambda _: None,
    ) -> FileRef:
        await self._running(job_id, attempt, check_node)
        return await self._keep(job_id, f"{attempt}-{check_file_name(name)}", name, data)

    async def get_file(
        self, job_id: JobId, attempt: int, url: str, *, check_node: Callable[[str], None] = lambda _: None
    ) -> AsyncIterator[bytes]:
        """Read for a job what its submitter could read, and no more: who runs a job lends it no rights."""
        job = await self._running(job_id, attempt, check_node)
        file = await self.find(*parse_file_url(url))
        submitter = job.spec.submitted_by
        if submitter is not None and submitter != await self._submitter_of(file.owner):
            raise Forbidden(f"{url} is not a file of who submitted {job_id}", field="url")
        async for chunk in self.read(file, 0, file.bytes):
            yield chunk

    async def _running(self, job_id: JobId, attempt: int, check_node: Callable[[str], None]) -> Job:
        job = await self._jobs.get(job_id)
        if job.state.status not in ACTIVE or job.state.attempt != attempt or job.state.worker_id is None:
            raise Conflict(f"attempt {attempt} of {job_id} does not run any more", field="attempt")
        check_node(job.state.worker_id.rpartition("-worker-")[0])
        return job

    async def _submitter_of(self, owner: str) -> str | None:
        if owner.startswith(_SENT):
            return owner.split(_SENT)[1] or None
        return (await self._jobs.get(JobId(owner))).spec.submitted_by

    # --- for people ---------------------------------------------------------------------------------------------------

    async def send(self, caller: Caller, name: str, data: AsyncIterable[bytes]) -> FileRef:
        file_id = new_id("file", self._clock.now_ms(), self._rng)
        owner = f"{_SENT}{caller.owner or ''}{_SENT}{file_id}"
        return await self._keep(owner, check_file_name(name), name, data)

    async def keep(self, of: str | None, lasting_id: str, name: str, data: AsyncIterable[bytes]) -> StoredFile:
        """Keep a file of somebody until it is forgotten, in place of what had its id and name."""
        owner = lasting_owner(of, lasting_id)
        ref = await self._keep(owner, check_file_name(name), name, data)
        return StoredFile(owner=owner, name=name, bytes=ref.bytes)

    async def forget(self, owner: str) -> None:
        """Delete all files of this owner."""
        await self._blobs.delete(owner)

    async def find(self, owner: str, name: str) -> StoredFile:
        parse_file_url(file_url(owner, name))
        size = await self._blobs.size(owner, name)
        if size is None:
            raise NotFound(f"no file {name!r} of {owner}: it never was, or its time to be kept is over", field="name")
        return StoredFile(owner=owner, name=name, bytes=size)

    async def find_for(self, caller: Caller, owner: str, name: str) -> StoredFile:
        file = await self.find(owner, name)
        if not caller.sees_jobs_of(await self._submitter_of(owner)):
            raise NotFound(f"no file {name!r} of {owner} that is yours", field="name")
        return file

    def read(self, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
        return self._blobs.read(file.owner, file.name, start, end)

    # --- keeping ------------------------------------------------------------------------------------------------------

    async def _keep(self, owner: str, kept: str, name: str, data: AsyncIterable[bytes]) -> FileRef:
        digest, size = hashlib.sha256(), 0

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in data:
                size += len(chunk)
                if size > self._file_bytes_max:
                    raise PayloadTooLarge(f"{name} has more than {self._file_bytes_max} bytes (setting file_bytes_max)")
                if self._total_bytes + size > self._files_bytes_max:
                    raise FilesFull(
                        f"all files together have {self._files_bytes_max} bytes already (setting files_bytes_max)"
                    )
                digest.update(chunk)
                yield chunk

        await self._blobs.put(owner, kept, measured())
        self._total_bytes += size
        return FileRef(
            name=name, type=media_type(name), bytes=size, sha256=digest.hexdigest(), url=file_url(owner, kept)
        )

    async def sweep(self) -> None:
        """Forget files with their jobs, and what people sent after its time. Safe to do by several at once."""
        now_ms = self._clock.now_ms()
        owners = await self._blobs.owners()
        made = [owner for owner in owners if not owner.startswith(_SENT)]
        gone = [
            owner
            for owner in owners
            if owner.startswith(_SENT)
            and not owner.endswith(_LASTING)
            and owners[owner].changed_at_ms + self._retention_ms < now_ms
        ]
        for begin in range(0, len(made), _BATCH):
            batch = [JobId(owner) for owner in made[begin : begin + _BATCH]]
            known = {job.job_id for job in await self._jobs.get_many(batch)}
            gone += [
                owner for owner in batch if owner not in known and owners[owner].changed_at_ms + _GRACE_MS < now_ms
            ]
        for owner in gone:
            with suppress(JobNotFound):
                await self._blobs.delete(owner)
        if gone:
            log.info("files_forgotten", owners=len(gone))
        self._total_bytes = sum(files.bytes for owner, files in owners.items() if owner not in set(gone))
