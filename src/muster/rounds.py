"""Work that goes round for ever: a fault is told, and the next round comes all the same."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from muster.errors import MusterError

log = structlog.get_logger()

_AGAIN_S = 60.0  # until it is told again that the same still goes wrong

Run = Callable[[], Awaitable[None]]


class Rounds:
    """What a Lifecycle has going round between its start and its stop, each under a name of its own."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def go(self, what: str, run: Run, pause_s: float, retry_s: float | None = None) -> None:
        """Have it done for ever, as `ever` says; what goes already goes on."""
        if what not in self._tasks:
            self._tasks[what] = asyncio.create_task(ever(run, what, pause_s, retry_s), name=what)

    async def stop(self, last: Run | None = None) -> None:
        """End them all. If there were any, `last` is done once more; that it went wrong is only told."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        if tasks and last is not None:
            try:
                await last()
            except MusterError as error:
                log.warning("last_round_interrupted", of=list(tasks), error=error.message)


async def ever(run: Run, what: str, pause_s: float, retry_s: float | None = None) -> None:
    """Do it again and again, with a pause after each time, or `retry_s` after it went wrong.

    What went wrong is logged as `what` was interrupted or failed; while the same goes wrong each time, now and then.
    """
    interrupted, failed = f"{what}_interrupted", f"{what}_failed"
    now_s = asyncio.get_running_loop().time
    told, quiet_until_s = "", 0.0
    while True:
        rest_s, problem = pause_s, ""
        try:
            await run()
        except Exception as error:  # the next round must come: nothing goes on without it
            rest_s = pause_s if retry_s is None else retry_s
            problem = repr(error)
            if problem != told or now_s() >= quiet_until_s:
                quiet_until_s = now_s() + _AGAIN_S
                if isinstance(error, MusterError):
                    log.warning(interrupted, error=error.message)
                else:
                    log.exception(failed)
        told = problem
        await asyncio.sleep(rest_s)


async def wait_up_to(event: asyncio.Event, limit_s: float | None) -> None:
    """Return once it is set, or when the time is over."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return
