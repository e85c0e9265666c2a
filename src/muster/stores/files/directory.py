"""Files in a directory, one folder for each owner: what one control plane needs."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from muster.errors import StoreUnavailable
from muster.ports import Files

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_ARRIVING = ".arriving-"  # no owner begins with a dot
_ARRIVING_S_MAX = 86_400.0  # what is older never will


class DirectoryFiles:
    """A BlobStore. Who reads sees a file whole or not at all: it gets its name when its last byte is written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, owner: str, name: str, data: AsyncIterable[bytes]) -> None:
        arriving = await self._do(self._begin)
        try:
            async for chunk in data:
                await self._do(_append, arriving, chunk)
            await self._do(self._finish, arriving, owner, name)
        except BaseException:
            with suppress(StoreUnavailable):
                await self._do(arriving.unlink)
            raise

    async def size(self, owner: str, name: str) -> int | None:
        try:
            return (await asyncio.to_thread((self._root / owner / name).stat)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._away(error) from None

    async def read(self, owner: str, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Open it anew for each part: a reader that goes in the middle leaves nothing open."""
        while start < end and (chunk := await self._do(self._part, owner, name, start, min(end - start, _CHUNK_BYTES))):
            start += len(chunk)
            yield chunk

    async def owners(self) -> dict[str, Files]:
        return await self._do(self._look_around)

    async def delete(self, owner: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / owner, ignore_errors=True)

    def _begin(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        number, path = tempfile.mkstemp(dir=self._root, prefix=_ARRIVING)
        os.close(number)
        return Path(path)

    def _finish(self, arrived: Path, owner: str, name: str) -> None:
        folder = self._root / owner
        folder.mkdir(exist_ok=True)
        arrived.replace(folder / name)

    def _part(self, owner: str, name: str, start: int, size: int) -> bytes:
        with (self._root / owner / name).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _look_around(self) -> dict[str, Files]:
        """Count what there is; what a control plane left half written when it died is cleared away on the way."""
        found = {}
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._root):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if entry.name.startswith(_ARRIVING):
                        if time.time() - entry.stat().st_mtime > _ARRIVING_S_MAX:
                            Path(entry).unlink()
                    elif entry.is_dir():
                        stats = [file.stat() for file in os.scandir(entry)]
                        changed_s = max((stat.st_mtime for stat in (*stats, entry.stat())), default=0.0)
                        total = sum(stat.st_size for stat in stats)
                        found[entry.name] = Files(bytes=total, changed_at_ms=round(changed_s * 1000))
        return found

    async def _do(self, act: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.to_thread(act, *args)
        except OSError as error:
            raise self._away(error) from None

    def _away(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"the files in {self._root} cannot be used: {error.strerror or error}")


def _append(path: Path, chunk: bytes) -> None:
    """Write to a file that is there: one whose writer has gone meanwhile must not come back."""
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(chunk)
