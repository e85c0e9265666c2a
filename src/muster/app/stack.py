"""Start in order, stop in reverse, each stop with a deadline."""

import asyncio

import structlog

from muster.ports import Lifecycle

log = structlog.get_logger()


class Stack:
    """A Lifecycle made of Lifecycles. A start that fails stops what has been started."""

    def __init__(self, stop_timeout_s: float) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._started: list[Lifecycle] = []

    async def start(self, service: Lifecycle) -> None:
        self._started.append(service)
        await service.start()

    async def stop(self) -> None:
        while self._started:
            service = self._started.pop()
            try:
                async with asyncio.timeout(self._stop_timeout_s):
                    await service.stop()
            except TimeoutError:
                log.warning("stop_took_too_long", service=type(service).__name__, timeout_s=self._stop_timeout_s)
            except Exception:
                log.exception("stop_failed", service=type(service).__name__)
