"""All logs of one side, an agent or a control plane, and who tends them: marked, kept to their size, cleared."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import structlog

from muster.clock import Clock
from muster.errors import NotFound
from muster.logs.file import LogFile, log_files
from muster.rounds import Rounds
from muster.wire.logs import LogInfo

log = structlog.get_logger()

_LOOK_EVERY_S = 0.5
_LOOK_SOON_S = 0.05  # at a flood


class LogShelf:
    """A Lifecycle. The logs are the `*.log` of a folder and what else is named, each known by its name without that."""

    def __init__(self, folder: Path, clock: Clock, *, also: Mapping[str, Path] | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._also = also or {}
        self._files: dict[str, LogFile] = {}
        self._lock = threading.Lock()
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("logs_tended", self._run, 0, _LOOK_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    # --- for who looks -----------------------------------------------------------------------------------------------

    def infos(self) -> list[LogInfo]:
        infos = []
        for name, file in self._all().items():
            parts = file.parts()
            changed_ms = file.path.stat().st_mtime_ns // 1_000_000 if file.path.exists() else 0
            size = parts[-1].end - parts[0].begin
            infos.append(LogInfo(name=name, bytes=size, parts=len(parts), changed_at_ms=changed_ms))
        return infos

    def matching(self, patterns: Sequence[str]) -> dict[str, LogFile]:
        """Return those that are named, `*` standing for anything; without a name all. NotFound where there is none."""
        known = self._all()
        found = {
            name: file
            for name, file in known.items()
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        if patterns and not found:
            raise NotFound(f"no log {' or '.join(patterns)} here; there are {', '.join(known) or 'none'}", field="log")
        return found

    def clear(self, patterns: Sequence[str]) -> list[str]:
        found = self.matching(patterns)
        for file in found.values():
            file.clear()
        return list(found)

    def file(self, name: str) -> LogFile:
        """Return the log of that name, also one that is still to be written."""
        with self._lock:  # each is one object, for it knows what was cut off
            if name not in self._files:
                self._files[name] = LogFile(self._also.get(name, self._folder / f"{name}.log"))
            return self._files[name]

    def _all(self) -> dict[str, LogFile]:
        named = [name for name, path in self._also.items() if path.exists()]
        return {name: self.file(name) for name in [*(path.stem for path in log_files(self._folder)), *named]}

    # --- tending -----------------------------------------------------------------------------------------------------

    def tend(self, now_ms: int) -> bool:
        """Look at all once; return whether one grows so fast that it should be looked at again soon."""
        in_flood = False
        for name, file in self._all().items():
            try:
                file.mark(now_ms)
                in_flood |= file.rotate()
            except OSError as error:
                log.warning("log_not_tended", log=name, error=str(error))
        return in_flood

    async def _run(self) -> None:
        in_flood = await asyncio.to_thread(self.tend, self._clock.now_ms())
        await asyncio.sleep(_LOOK_SOON_S if in_flood else _LOOK_EVERY_S)
