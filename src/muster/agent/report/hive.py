"""How the workers are, told every second to a queen that listens to hives, beside what the control plane is told.

A tick that fails costs nothing but itself: workers that cannot be looked at are told as none, a queen that is away,
slow or refuses is tried again with the next tick.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from muster.clock import Clock
from muster.errors import MusterError
from muster.wire.hives import HiveHeartbeat, HiveInfo, HiveWorker

log = structlog.get_logger()

Send = Callable[[HiveHeartbeat], Awaitable[None]]
_LOOK_S = 2.0


class HiveReport:
    """A Lifecycle. `tell` makes an event of the node: that the queen is not reached any more, and that it is again."""

    def __init__(
        self,
        info: Callable[[], HiveInfo],
        look: Callable[[], Awaitable[tuple[HiveWorker, ...]]],
        send: Send,
        tell: Callable[..., None],
        clock: Clock,
        *,
        interval_s: float,
    ) -> None:
        self._info = info
        self._look = look
        self._send = send
        self._tell = tell
        self._clock = clock
        self._interval_s = interval_s
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._report_on(), name="hive")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def report(self) -> None:
        """Tell it once; raises MusterError."""
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        await self._send(HiveHeartbeat(hive=self._info(), timestamp=at, workers=await self._workers()))

    async def _report_on(self) -> None:
        due_s = self._clock.monotonic_s()
        while True:
            try:
                await self.report()
            except MusterError as error:
                self._failed(error.message)
            except Exception as error:
                log.exception("hive_report_fault")  # a fault of ours must not end it
                self._failed(str(error))
            else:
                self._succeeded()
            due_s = max(due_s + self._interval_s, self._clock.monotonic_s())
            await asyncio.sleep(due_s - self._clock.monotonic_s())

    async def _workers(self) -> tuple[HiveWorker, ...]:
        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is: a hive that cannot look is still there
            log.warning("workers_not_looked_at", error=str(error) or type(error).__name__)
            return ()

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("queen_not_reached", error=problem)
            self._tell("queen_not_reached", error=problem)
            self._problem = problem

    def _succeeded(self) -> None:
        if self._problem is not None:
            log.info("queen_reached", after=self._problem)
            self._tell("queen_reached", after=self._problem)
            self._problem = None
