"""A fetcher with all that belongs to it, and what tests want to know of it."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from muster.agent.artifacts.download import Downloads, Limits
from muster.agent.artifacts.fetcher import Fetcher, FetchRules, fetchable
from muster.agent.artifacts.patience import Patience
from muster.agent.artifacts.plan import Hub
from muster.agent.artifacts.room import DiskLimits
from muster.agent.artifacts.space import Space
from muster.agent.artifacts.store import ArtifactStore, Entry, Kept
from muster.agent.backoff import Backoff
from muster.domain.artifact import ArtifactKind
from muster.errors import MusterError
from muster.system import SystemClock
from muster.wire import ArtifactReply
from tests.chance import FixedChance

QUICK = Limits(
    connect_s=5.0,
    idle_s=5.0,
    patience=Patience(attempts_max=3, backoff=Backoff(base_s=0.001, max_s=0.002, jitter=0.0)),
)


async def no_pause(_: float) -> None: ...


def quick_downloads(session: aiohttp.ClientSession) -> Downloads:
    return Downloads(session, QUICK, SystemClock(), FixedChance(), no_pause)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive_of(**files: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


class FetchBench:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        folder: Path,
        *,
        hub: str = "",
        disk: DiskLimits = DiskLimits(),  # noqa: B008 - it cannot be changed
        wait_for_fleet_s: float = 0.0,
        is_wanted: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        self.store = ArtifactStore(folder, SystemClock())
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.progress: list[tuple[int, int | None]] = []
        self.replies: list[ArtifactReply | MusterError] = []
        self.asked: list[tuple[str, str | None]] = []
        self.copies = ArtifactReply()
        space = Space(self.store, disk, self._find_copies, self._tell, is_wanted)
        self.fetcher = Fetcher(
            self.store,
            quick_downloads(session),
            quick_downloads(session),
            self._find,
            FetchRules(hub=Hub(url=hub, token="hub-token"), wait_for_fleet_s=wait_for_fleet_s),
            SystemClock(),
            self._tell,
            space,
        )

    def _tell(self, kind: str, **data: Any) -> None:
        self.events.append((kind, data))

    async def _find(self, name: str, digest: str | None) -> ArtifactReply:
        self.asked.append((name, digest))
        reply = self.replies.pop(0) if self.replies else ArtifactReply()
        if isinstance(reply, MusterError):
            raise reply
        return reply

    async def _find_copies(self, _: tuple[str, ...]) -> ArtifactReply:
        return self.copies

    async def get(self, name: str, kind: ArtifactKind = ArtifactKind.MODEL, **how: bool) -> Kept:
        source = fetchable(name)
        assert source is not None
        return await self.fetcher.fetch(source, kind, lambda done, total: self.progress.append((done, total)), **how)

    async def bundle(self, name: str, **how: bool) -> Path:
        return self.store.path_of(await self.get(name, ArtifactKind.BUNDLE, **how))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [data for known, data in self.events if known == kind]
