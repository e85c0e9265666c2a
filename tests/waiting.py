"""Waiting for conditions instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_POLL_S = 0.01


@overload
async def eventually(check: Callable[[], Awaitable[T]], timeout_s: float = 10.0) -> T: ...
@overload
async def eventually(check: Callable[[], T], timeout_s: float = 10.0) -> T: ...
async def eventually(check: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0) -> T:
    """Return the first truthy value of `check`; fail with its last value or error at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        problem: object
        try:
            outcome = check()
            value: T = await outcome if inspect.isawaitable(outcome) else outcome
            if value:
                return value
            problem = value
        except (AssertionError, LookupError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s; last seen: {problem!r}")
        await asyncio.sleep(_POLL_S)  # the one place that waits by time, and only between looks


def eventually_sync(check: Callable[[], T], timeout_s: float = 10.0) -> T:
    """Do as `eventually` does, outside a loop."""
    deadline = time.monotonic() + timeout_s
    while True:
        problem: object
        try:
            value = check()
            if value:
                return value
            problem = value
        except (AssertionError, LookupError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s; last seen: {problem!r}")
        time.sleep(_POLL_S)  # as above
