"""One job for each of many payloads, a bounded number at a time."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from muster.client.errors import WaitTimedOut
from muster.client.following import Following
from muster.client.jobs import Job
from muster.client.waiting import Ends

_TAKE_S = 0.05  # a source that is slow should not keep back what it has given

# Yields ended jobs, and how many payloads it wants: these are to be sent to it, or none when there are no more.
Mapping = AsyncGenerator[Job | int, Sequence[Any] | None]


async def mapping(
    submit: Callable[[Sequence[Any]], Awaitable[list[str]]],
    following: Following,
    *,
    in_flight: int,
    ordered: bool,
    wait_s: float,
) -> Mapping:
    """Submit, follow and yield; the payloads come from outside, for only the caller's own thread may read them."""
    ends = Ends()
    turns: deque[str] = deque()  # those not yet yielded, in the order of their payloads
    ended: dict[str, Job] = {}
    begun_s: dict[str, float] = {}
    payload_of: dict[str, Any] = {}
    more = True
    with following.listening(ends) as listening:
        while True:
            room = in_flight - len(turns)
            if more and (not begun_s or room >= max(1, in_flight // 4)):
                payloads = (yield room) or ()
                more = bool(payloads)
                job_ids = await submit(payloads)
                turns.extend(job_ids)
                payload_of |= zip(job_ids, payloads, strict=True)
                begun_s |= dict.fromkeys(job_ids, time.monotonic())
                listening.follow(job_ids)
                continue
            if not turns:
                return
            try:
                async with asyncio.timeout(next(iter(begun_s.values())) + wait_s - time.monotonic()):
                    job = await ends.next()
            except TimeoutError:
                raise too_long(set(begun_s), wait_s, ends.last) from None
            listening.leave(job.job_id)
            del begun_s[job.job_id]
            ended[job.job_id] = replace(job, payload=payload_of.pop(job.job_id))
            if not ordered:
                turns.remove(job.job_id)
                yield ended.pop(job.job_id)
            while turns and turns[0] in ended:
                yield ended.pop(turns.popleft())


async def next_step(steps: Mapping, payloads: Sequence[Any] | None) -> Job | int | None:
    """Send what it wanted and return what it yields next, None at the end."""
    try:
        return await steps.asend(payloads)
    except StopAsyncIteration:
        return None


def take(source: Iterator[Any], most: int) -> list[Any]:
    """Return the next payloads: as many as come at once, one at least while there is one."""
    taken: list[Any] = []
    until_s: float | None = None
    for payload in source:
        taken.append(payload)
        until_s = until_s or time.monotonic() + _TAKE_S
        if len(taken) >= most or time.monotonic() > until_s:
            break
    return taken


def too_long(job_ids: set[str], timeout_s: float, last: dict[str, Job]) -> WaitTimedOut:
    job_id = min(job_ids)
    job = last.get(job_id)
    others = f", and {len(job_ids) - 1} more" if len(job_ids) > 1 else ""
    how = f"still {job.status}" if job is not None else "not known to have ended"
    return WaitTimedOut(f"{job_id} is {how} after {timeout_s:g} s{others}; it goes on", job)
