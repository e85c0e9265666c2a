"""Batches and their files for people: sent, looked at, cancelled. Who does the work is `runner.py`."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from muster.access.book import Caller
from muster.batches.lines import KINDS
from muster.clock import Clock, Rng
from muster.control.files import FileService, StoredFile
from muster.domain.batch import BATCH_ENDED, Batch, BatchStatus, KeptFile
from muster.domain.file import safe_name
from muster.errors import BatchNotFound, Conflict, InvalidInput, NotFound, QueueFull
from muster.ids import new_id
from muster.ports import BatchStore, Bus, FileIndex

TOPIC = "batches"
PURPOSE = "batch"

_BATCHES_MAX = 1000
_FILES_MAX = 10_000
_WINDOW = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WINDOW_S_MAX = 7 * 86_400
_METADATA_MAX = 16
_KEY_CHARS_MAX, _VALUE_CHARS_MAX = 64, 512
_FILENAME_CHARS_MAX = 256


class BatchRecords(BatchStore, FileIndex, Protocol):
    """The two faces of the one store."""


class WantedBatch(Struct, frozen=True, kw_only=True):
    """As OpenAI has it. `completion_window` is `24h` there; here any number of s, m, h or d up to seven days."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class BatchDesk:
    def __init__(self, store: BatchRecords, files: FileService, bus: Bus, clock: Clock, rng: Rng) -> None:
        self._store = store
        self._files = files
        self._bus = bus
        self._clock = clock
        self._rng = rng

    # --- files -------------------------------------------------------------------------------------------------------

    async def send_file(self, caller: Caller, filename: str, purpose: str, data: AsyncIterable[bytes]) -> KeptFile:
        if purpose != PURPOSE:
            raise InvalidInput(f"purpose must be {PURPOSE}, got {purpose[:50]!r}", field="purpose")
        if len(await self._store.files()) >= _FILES_MAX:
            raise QueueFull(f"there are {_FILES_MAX} files, which is as many as there may be: delete one")
        now_ms = self._clock.now_ms()
        file_id = new_id("file", now_ms, self._rng)
        stored = await self._files.keep(caller.owner, file_id, safe_name(filename), data)
        file = KeptFile(
            file_id=file_id,
            place=(stored.owner, stored.name),
            filename=filename[:_FILENAME_CHARS_MAX],
            purpose=purpose,
            bytes=stored.bytes,
            created_at_ms=now_ms,
            owner=caller.owner,
        )
        await self._store.save_file(file)
        return file

    async def files(self, caller: Caller) -> list[KeptFile]:
        """Return the caller's own, or all, the newest first."""
        return [file for file in reversed(await self._store.files()) if caller.sees_jobs_of(file.owner)]

    async def file(self, caller: Caller, file_id: str, field: str = "file_id") -> KeptFile:
        file = await self._store.file(file_id)
        if file is None or not caller.sees_jobs_of(file.owner):
            raise NotFound(f"No such File object: {file_id}", field=field)
        return file

    def content(self, file: KeptFile) -> AsyncIterator[bytes]:
        owner, name = file.place
        return self._files.read(StoredFile(owner=owner, name=name, bytes=file.bytes), 0, file.bytes)

    async def remove_file(self, caller: Caller, file_id: str) -> None:
        file = await self.file(caller, file_id)
        for batch in await self._store.batches():
            if batch.input_file_id == file_id and batch.status not in BATCH_ENDED:
                raise Conflict(f"{batch.batch_id} still reads {file_id}: cancel it first", field="file_id")
        await self._store.remove_file(file_id)
        await self._files.forget(file.place[0])

    # --- batches -----------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, wanted: WantedBatch, traceparent: str | None = None) -> Batch:
        """Keep a batch; its jobs are part of the trace of `traceparent`."""
        if wanted.endpoint not in KINDS:
            raise InvalidInput(
                f"endpoint must be one of {', '.join(KINDS)}, got {wanted.endpoint[:100]!r}", field="endpoint"
            )
        window_s = _window_s(wanted.completion_window)
        _check_metadata(wanted.metadata)
        file = await self.file(caller, wanted.input_file_id, "input_file_id")
        if file.purpose != PURPOSE:
            raise InvalidInput(f"{file.file_id} is no input: its purpose is {file.purpose}", field="input_file_id")
        kept = await self._store.batches()
        if len(kept) >= _BATCHES_MAX:
            ended = next((batch for batch in kept if batch.status in BATCH_ENDED), None)
            if ended is None:
                raise QueueFull(f"{_BATCHES_MAX} batches are open, which is as many as there may be")
            await self._store.remove(ended.batch_id)
        now_ms = self._clock.now_ms()
        batch = Batch(
            batch_id=new_id("batch", now_ms, self._rng),
            endpoint=wanted.endpoint,
            input_file_id=file.file_id,
            input_place=file.place,
            completion_window=wanted.completion_window,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + window_s * 1000,
            owner=caller.owner,
            metadata=wanted.metadata,
            traceparent=traceparent,
        )
        await self._store.save(batch)
        await self._bus.publish(TOPIC, b"")
        return batch

    async def get(self, caller: Caller, batch_id: str) -> Batch:
        batch = await self._store.batch(batch_id)
        if batch is None or not caller.sees_jobs_of(batch.owner):
            raise BatchNotFound(f"No batch found with id '{batch_id}'.", field="batch_id")
        return _shown(batch, await self._store.cancels())

    async def all(self, caller: Caller) -> list[Batch]:
        """Return the caller's own, or all, the newest first."""
        cancels = await self._store.cancels()
        return [
            _shown(batch, cancels)
            for batch in reversed(await self._store.batches())
            if caller.sees_jobs_of(batch.owner)
        ]

    async def count_open(self) -> int:
        """Count everybody's that have not ended."""
        return sum(batch.status not in BATCH_ENDED for batch in await self._store.batches())

    async def cancel(self, caller: Caller, batch_id: str) -> Batch:
        """Have it end with what it has; a second time changes nothing."""
        batch = await self.get(caller, batch_id)
        if batch.status in BATCH_ENDED:
            raise Conflict(f"Cannot cancel a batch with status '{batch.status.value}'.", field="batch_id")
        await self._store.ask_cancel(batch_id, self._clock.now_ms())
        await self._bus.publish(TOPIC, b"")
        return await self.get(caller, batch_id)


def _shown(batch: Batch, cancels: dict[str, int]) -> Batch:
    at_ms = cancels.get(batch.batch_id)
    if at_ms is None or batch.status in BATCH_ENDED:
        return batch
    return replace(batch, status=BatchStatus.CANCELLING, at_ms=batch.at_ms | {BatchStatus.CANCELLING.value: at_ms})


def _window_s(text: str) -> int:
    match = _WINDOW.match(text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 1 <= seconds <= _WINDOW_S_MAX:
        raise InvalidInput(
            f"completion_window must be a time like 24h, seven days at most, got {text[:20]!r}",
            field="completion_window",
        )
    return seconds


def _check_metadata(metadata: dict[str, str] | None) -> None:
    given = metadata or {}
    if len(given) > _METADATA_MAX or any(
        len(key) > _KEY_CHARS_MAX or len(value) > _VALUE_CHARS_MAX for key, value in given.items()
    ):
        raise InvalidInput(
            f"metadata may have {_METADATA_MAX} keys of {_KEY_CHARS_MAX} and values of {_VALUE_CHARS_MAX} characters",
            field="metadata",
        )
