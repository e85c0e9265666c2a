"""Room on the disk for what is to come: made by evicting what the fleet misses least."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from muster.agent.artifacts.room import Candidate, DiskLimits, Worth, shortage_bytes, to_evict
from muster.agent.artifacts.store import ArtifactStore, Entry
from muster.errors import Conflict, DiskFull, MusterError, NotFound
from muster.wire import ArtifactReply

log = structlog.get_logger()

Tell = Callable[..., None]  # an event's kind and what there is to say
FindCopies = Callable[[tuple[str, ...]], Awaitable[ArtifactReply]]  # of these digests, on other nodes


class Space:
    """`is_wanted`: by a service of this node, though it may not run now, or by its file."""

    def __init__(
        self,
        store: ArtifactStore,
        limits: DiskLimits,
        find_copies: FindCopies,
        tell: Tell,
        is_wanted: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._limits = limits
        self._find_copies = find_copies
        self._tell = tell
        self._is_wanted = is_wanted
        self._making = asyncio.Lock()

    async def make(self, name: str, more_bytes: int) -> None:
        """Evict until `more_bytes` fit; DiskFull where what may go would not do, and then nothing goes."""
        async with self._making:
            shortage = await asyncio.to_thread(self._shortage, more_bytes)
            if not shortage:
                return
            entries = {entry.kept.digest: entry for entry in await asyncio.to_thread(self._store.entries)}
            copies = await self._copies(tuple(entries))
            candidates = [await asyncio.to_thread(self._candidate, entry, copies) for entry in entries.values()]
            chosen = to_evict(candidates, shortage)
            if chosen is None:
                raise _no_room(name, more_bytes, shortage, self._limits, self._store.folder)
            for candidate in chosen:
                await asyncio.to_thread(self.forget, candidate.digest)
                self._tell(
                    "artifact_removed",
                    names=entries[candidate.digest].names,
                    digest=candidate.digest,
                    size_bytes=candidate.size_bytes,
                    reason=f"to make room for {name}",
                )
            left = await asyncio.to_thread(self._shortage, more_bytes)
            if left:
                raise _no_room(name, more_bytes, left, self._limits, self._store.folder)

    def forget(self, digest: str) -> None:
        """Remove it, unless somebody has begun to use it."""
        try:
            self._store.remove(digest)
        except (Conflict, NotFound) as error:
            log.warning("artifact_not_removed", digest=digest, error=error.message)

    def _shortage(self, more_bytes: int) -> int:
        used_bytes = self._store.used_bytes() if self._limits.disk_bytes_max else 0
        return shortage_bytes(self._limits, more_bytes, used_bytes, self._store.free_bytes())

    async def _copies(self, digests: tuple[str, ...]) -> ArtifactReply:
        try:
            return await self._find_copies(digests)
        except MusterError as error:
            log.debug("copies_not_known", error=error.message)  # then each may be the only one
            return ArtifactReply()

    def _candidate(self, entry: Entry, copies: ArtifactReply) -> Candidate:
        digest = entry.kept.digest
        if self._is_wanted(entry):
            worth = Worth.WANTED
        elif digest in copies.in_pool:
            worth = Worth.SPARE
        else:
            worth = Worth.ELSEWHERE if digest in copies.elsewhere else Worth.ONLY_COPY
        return Candidate(
            digest=digest,
            size_bytes=entry.kept.size_bytes,
            last_used_ms=entry.last_used_ms,
            worth=worth,
            in_use=self._store.is_in_use(digest),
        )


def _no_room(name: str, more_bytes: int, shortage: int, limits: DiskLimits, folder: Path) -> DiskFull:
    bound = f"artifact_disk_bytes_max is {limits.disk_bytes_max}" if limits.disk_bytes_max else ""
    least = f"artifact_free_bytes_min keeps {_mb(limits.free_bytes_min)} free" if limits.free_bytes_min else ""
    rules = " and ".join(filter(None, (bound, least)))
    return DiskFull(
        f"there is no room for {name}: it needs {_mb(more_bytes)} more below {folder}, {_mb(shortage)} too many"
        + (f" ({rules})" if rules else "")
        + ", and what could go would not do",
        next_step="free some space, remove models (muster model rm), or set MUSTER_ARTIFACT_DIR to another disk; what "
        "has come so far is kept and gone on with",
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
