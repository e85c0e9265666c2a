"""Start in order, stop in reverse, each stop with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from muster.ports import Lifecycle

log = structlog.get_logger()

Stop = Callable[[], Awaitable[None]]


class Stack:
    """What has been started, and how each part is stopped."""

    def __init__(self, stop_timeout_s: float) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._stops: list[Stop] = []

    async def start(self, service: Lifecycle) -> None:
        """Remember the stop first: a start that fails halfway has something to give back."""
        self._stops.append(service.stop)
        await service.start()

    def add(self, stop: Stop) -> None:
        self._stops.append(stop)

    async def stop(self) -> None:
        while self._stops:
            stop = self._stops.pop()
            try:
                async with asyncio.timeout(self._stop_timeout_s):
                    await stop()
            except TimeoutError:
                log.warning(
                    "stop_took_too_long", what=getattr(stop, "__qualname__", repr(stop)), timeout_s=self._stop_timeout_s
                )
            except Exception:
                log.exception("stop_failed", what=getattr(stop, "__qualname__", repr(stop)))
