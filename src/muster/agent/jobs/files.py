"""Files of one attempt: sent again while the control plane is away, bounded in number, with names of their own."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from muster.domain.file import FileRef, safe_name
from muster.domain.job import ClaimedJob
from muster.errors import InvalidInput, MusterError, PayloadTooLarge, UpstreamFailed
from muster.ids import JobId
from muster.ports import FileLink

T = TypeVar("T")

log = structlog.get_logger()

_FILES_MAX = 256
_CHUNK_BYTES = 1024 * 1024
_PAUSES_S = (0.5, 2.0, 5.0, 10.0)  # a control plane that is started anew is back by then


class NoFiles:
    """A FileLink where there is none."""

    async def put_file(self, _: JobId, __: int, name: str, ___: AsyncIterable[bytes]) -> FileRef:
        raise _nowhere(name)

    def get_file(self, _: JobId, __: int, url: str) -> AsyncIterator[bytes]:
        raise _nowhere(url)


def _nowhere(what: str) -> UpstreamFailed:
    return UpstreamFailed(f"this worker has no way to the files of the fleet, and so none to {what}")


class AttemptFiles:
    """A JobFiles."""

    def __init__(self, link: FileLink, job: ClaimedJob, *, pauses_s: Sequence[float] = _PAUSES_S) -> None:
        self._link = link
        self._job_id = job.spec.job_id
        self._attempt = job.attempt
        self._pauses_s = pauses_s
        self._names: dict[str, str] = {}  # as given, by the names that they are kept under

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        kept = self._name(name)
        return await self._patiently(
            lambda: self._link.put_file(self._job_id, self._attempt, kept, _chunks(data)), f"keep {name}"
        )

    async def get(self, url: str, into: Path) -> int:
        return await self._patiently(lambda: self._fetch(url, into), f"fetch {url}")

    async def _patiently(self, act: Callable[[], Awaitable[T]], what: str) -> T:
        """Try again: a control plane that is away for a moment must not cost what was computed for an hour."""
        for pause_s in self._pauses_s:
            try:
                return await act()
            except MusterError as error:
                if not error.retriable:
                    raise
                log.warning("file_waits", job_id=self._job_id, what=what, error=error.message)
                await asyncio.sleep(pause_s)
        return await act()

    async def _fetch(self, url: str, into: Path) -> int:
        size = 0
        await asyncio.to_thread(into.write_bytes, b"")
        async for chunk in self._link.get_file(self._job_id, self._attempt, url):
            size += len(chunk)
            await asyncio.to_thread(_append, into, chunk)
        return size

    def _name(self, name: str) -> str:
        """Return a safe name that stands for this one alone: two that look the same in safe letters are told apart."""
        safe = safe_name(name)
        kept, number = safe, 1
        while self._names.get(kept, name) != name:
            number += 1
            kept = f"{number}-{safe}"
        self._names[kept] = name
        if len(self._names) > _FILES_MAX:
            raise PayloadTooLarge(f"one attempt may keep {_FILES_MAX} files, and this is one more: {name}")
        return kept


async def _chunks(data: bytes | Path) -> AsyncIterator[bytes]:
    """Open a file anew for each part: an attempt that is cancelled in the middle leaves nothing open."""
    start = 0
    while chunk := data[start : start + _CHUNK_BYTES] if isinstance(data, bytes) else await _part(data, start):
        start += len(chunk)
        yield chunk


async def _part(path: Path, start: int) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(_CHUNK_BYTES)

    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None


def _append(path: Path, chunk: bytes) -> None:
    with path.open("ab") as file:
        file.write(chunk)
