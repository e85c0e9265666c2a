"""An event loop whose time is made up: it jumps to the next timer as soon as nothing else is left to do."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")

_THREADS_S = 5.0  # for one that reads a file, and has no timer


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self._now = now

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and timeout is not None:
            self._now[0] += max(0.0, timeout)
        elif not events:
            events = super().select(_THREADS_S)
            if not events:
                raise RuntimeError("nothing runs and nothing is due: the test would wait for ever")
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = [1000.0]
        super().__init__(_JumpingSelector(self._now))

    def time(self) -> float:
        return self._now[0]


class LoopClock:
    """The Clock of the running loop."""

    def now_ms(self) -> int:
        return round(self.monotonic_s() * 1000)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test to its end in no time; an hour of it is as good as a second."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def time_passes(seconds: float) -> None:
    """Let virtual time pass: for a condition that must not come true, or a service that takes its time."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


async def until(check: Callable[[], object], timeout_s: float = 600.0) -> None:
    """Let time pass until `check` holds."""
    async with asyncio.timeout(timeout_s):
        while not check():
            await time_passes(0.01)
