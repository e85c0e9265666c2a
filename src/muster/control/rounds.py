"""Work that goes round for ever: a fault is told, and the next round comes all the same."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from muster.errors import MusterError

log = structlog.get_logger()


async def ever(run: Callable[[], Awaitable[None]], what: str, pause_s: float) -> None:
    """Do it again and again; whatever went wrong is logged as `what` was interrupted or failed."""
    interrupted, failed = f"{what}_interrupted", f"{what}_failed"
    while True:
        try:
            await run()
        except MusterError as error:
            log.warning(interrupted, error=error.message)
        except Exception:  # the next round must come: nothing goes on without it
            log.exception(failed)
        await asyncio.sleep(pause_s)


async def wait_up_to(event: asyncio.Event, limit_s: float) -> None:
    """Return once it is set, or when the time is over."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return
