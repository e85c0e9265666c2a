"""A cgroup (v2) of its own for one attempt, where the node's file names a place in which we may make one."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import structlog

from muster.connectors.program.config import Limits

log = structlog.get_logger()

_PERIOD_US = 100_000
_PERCENT = 100
_TRIES = 40
_TRY_EVERY_S = 0.01
_BYTES_PER_MB = 1024 * 1024


class Cgroup:
    """Limits that bind all processes together, and an end that none of them escapes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def make(cls, parent: str, name: str, limits: Limits) -> "Cgroup | None":
        """Return None, and say why in the log, where it cannot be made."""
        path = Path(parent) / name
        wanted: dict[str, object] = {}
        if limits.memory_mb is not None:
            wanted |= {"memory.max": limits.memory_mb * _BYTES_PER_MB, "memory.swap.max": 0, "memory.oom.group": 1}
        if limits.cpu_percent is not None:
            wanted["cpu.max"] = f"{limits.cpu_percent * _PERIOD_US // _PERCENT} {_PERIOD_US}"
        try:
            path.mkdir(exist_ok=True)  # an agent that was killed may have left it
            made = cls(path)
        except OSError as error:
            log.warning("no_cgroup", parent=parent, error=str(error), next_step="delegate it to the agent's user")
            return None
        for file, value in wanted.items():
            try:
                (path / file).write_text(str(value))
            except OSError as error:
                if file in {"memory.max", "cpu.max"}:
                    log.warning("cgroup_without_limit", path=str(path), limit=file, error=str(error))
        return made

    @property
    def limits_memory(self) -> bool:
        return (self._path / "memory.max").exists()

    def join(self) -> None:
        """Enter it: in the child, between fork and exec, so that all that it starts is in here as well."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def kill(self) -> None:
        with suppress(OSError):
            (self._path / "cgroup.kill").write_text("1")

    async def remove(self) -> None:
        """Wait for the last process to be gone: until then it is in use."""
        for _ in range(_TRIES):
            try:
                self._path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                await asyncio.sleep(_TRY_EVERY_S)
            else:
                return
        log.warning("cgroup_remains", path=str(self._path))
