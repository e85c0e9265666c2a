"""Programs that may hang in a driver: killed at their deadline, and left behind when even that does not end them."""

import asyncio
from contextlib import suppress

import structlog

from muster.clock import Clock
from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.system import die_with_parent

log = structlog.get_logger()

_AFTER_KILL_S = 1.0
_REST_S, _REST_S_MAX = 1.0, 60.0
_OUTPUT_BYTES_MAX = 8 * 1024 * 1024


def rest_s(failures: int) -> float:
    """Return how long to let a driver be, after so many failures in a row."""
    return min(_REST_S_MAX, _REST_S * 2.0 ** min(failures - 1, 10))


class Ending:
    """Ends processes for sure, or remembers the one that it could not end: no second one is begun beside it."""

    def __init__(self) -> None:
        self._stuck: asyncio.subprocess.Process | None = None

    def refuse_beside_stuck(self) -> None:
        if self._stuck is not None and self._stuck.returncode is None:
            raise UpstreamFailed(f"process {self._stuck.pid} hangs in the kernel and cannot be ended")
        self._stuck = None

    async def end(self, process: asyncio.subprocess.Process, what: str) -> None:
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        try:
            async with asyncio.timeout(_AFTER_KILL_S):
                await process.wait()
        except TimeoutError:
            self._stuck = process
            log.error(  # noqa: TRY400 - that it timed out says all
                "process_stuck", what=what, pid=process.pid, next_step="restart this machine"
            )


class BoundedProgram:
    """A program that is run to its end or its deadline; after one that hung the next is not begun for a while."""

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._ending = Ending()
        self._hung = 0  # in a row
        self._rests_until_s = 0.0
        self._why = ""

    async def run(self, *command: str) -> str:
        """Return what it wrote. UpstreamTimeout: it hung; UpstreamFailed: it failed, with its last words."""
        if self._clock.monotonic_s() < self._rests_until_s:
            raise UpstreamTimeout(self._why)
        self._ending.refuse_beside_stuck()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_OUTPUT_BYTES_MAX,
                preexec_fn=die_with_parent(),
            )
        except OSError as error:
            raise UpstreamFailed(f"{command[0]} cannot be started: {error}") from None
        try:
            async with asyncio.timeout(self._timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            self._hung += 1
            self._rests_until_s = self._clock.monotonic_s() + rest_s(self._hung)
            self._why = f"{command[0]} did not answer within {self._timeout_s:g} s"
            raise UpstreamTimeout(self._why) from None
        finally:
            await self._ending.end(process, command[0])
        self._hung = 0
        text = output.decode(errors="replace")
        if process.returncode != 0:
            words = " ".join(text.split())
            raise UpstreamFailed(f"{command[0]} failed with code {process.returncode}: {words[-300:]}")
        return text
