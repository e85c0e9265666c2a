"""A service as a child process with a process group of its own, which ends with it and with us."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from muster.agent.services.log_file import LogFile
from muster.system import die_with_parent, own_environment

_AFTER_KILL_S = 5.0  # a process that hangs in the kernel does not end even then


class ServiceProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls, command: Sequence[str], env: dict[str, str], directory: Path, log_file: LogFile) -> Self:
        """Raise OSError when it cannot be started. The child's life is tied to the calling thread: the main one."""
        with log_file.open() as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=own_environment() | env,
                cwd=directory,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        """Wait for its end and return how it ended, in words."""
        code = await self._process.wait()
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it exited with code {code}"

    async def stop(self, timeout_s: float) -> None:
        """Ask, then force; in the end the whole group is gone, children that the service left behind included."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._process.wait()
        self._signal(signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AFTER_KILL_S):
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(self.pid, number)


def command_problem(error: OSError, command: Sequence[str]) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == command[0]:
        return f"there is no command {command[0]!r} on this machine"
    return f"{command[0]!r} cannot be started: {error}"
