"""A helper process that answers each line with a line: kept open, ended when it hangs, started again."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import structlog

from muster.clock import Clock
from muster.devices.bounded import Ending, rest_s
from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.system import die_with_parent

log = structlog.get_logger()

_ANSWER_BYTES_MAX = 4 * 1024 * 1024
_GLANCE_S = 0.2  # once it has failed nobody waits for it: its answer is there at the next look


class HelperProcess:
    """`answer_s` is what an answer may take, `first_answer_s` the first of each process: it may wake every card.

    Only the very first question waits as long as that; later ones are told that the driver is still being set up.
    """

    def __init__(self, command: Sequence[str], clock: Clock, *, answer_s: float, first_answer_s: float) -> None:
        self._command = command
        self._clock = clock
        self._answer_s = answer_s
        self._first_answer_s = first_answer_s
        self._ending = Ending()
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._answered = False  # by this process
        self._ever_answered = False
        self._asked_s: float | None = None  # since when an answer is owed
        self._failures = 0
        self._rests_until_s = 0.0
        self._why = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def ask(self) -> bytes:
        """Raise UpstreamTimeout when it does not answer, UpstreamFailed when it ended or rests; both say why."""
        async with self._turn:
            owed = self._asked_s is not None
            answer = await self._ask()
            return await self._ask() if owed else answer  # what an earlier question was answered is out of date

    async def close(self) -> None:
        """End it; the next question starts it again."""
        await self._end()

    async def _ask(self) -> bytes:
        process = self._process or await self._start()
        stdin, stdout = cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout)
        if self._asked_s is None:
            with suppress(ConnectionError):  # it ended: reading says so
                stdin.write(b"\n")
            self._asked_s = self._clock.monotonic_s()
        limit_s = self._answer_s if self._answered else self._first_answer_s
        left_s = self._asked_s + limit_s - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(min(left_s, self._patience_s)):
                line = await stdout.readline()
        except TimeoutError:
            raise await self._silent(self._asked_s + limit_s) from None
        except ValueError:  # a line beyond all bounds
            line = b""
        if not line.endswith(b"\n"):
            await self._end()
            raise self._failed(f"it ended with code {process.returncode}")
        self._asked_s = None
        self._answered = self._ever_answered = True
        self._failures = 0
        return line

    @property
    def _patience_s(self) -> float:
        if self._failures:
            return _GLANCE_S
        return self._answer_s if self._ever_answered else self._first_answer_s

    async def _start(self) -> asyncio.subprocess.Process:
        if self._clock.monotonic_s() < self._rests_until_s:
            raise UpstreamFailed(self._why)
        self._ending.refuse_beside_stuck()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_ANSWER_BYTES_MAX,
                preexec_fn=die_with_parent(),
            )
        except OSError as error:
            raise self._failed(f"it cannot be started: {error}") from None
        return self._process

    async def _silent(self, deadline_s: float) -> UpstreamTimeout:
        if self._clock.monotonic_s() < deadline_s:
            return UpstreamTimeout("the driver is still being set up")
        pid = self.pid
        limit_s = self._answer_s if self._answered else self._first_answer_s
        await self._end()
        self._failed(f"the driver did not answer within {limit_s:g} s")
        log.warning("gpu_helper_hung", pid=pid, failures=self._failures)
        return UpstreamTimeout(self._why)

    def _failed(self, why: str) -> UpstreamFailed:
        self._failures += 1
        self._rests_until_s, self._why = self._clock.monotonic_s() + rest_s(self._failures), why
        return UpstreamFailed(why)

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._asked_s, self._answered = None, False
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            await self._ending.end(process, "the helper that reads GPUs")
