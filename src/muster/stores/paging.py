"""Pages of jobs, the same for every store.

A page walks lanes in order; a lane merges sets of (score, job id), and a cursor is the last place that was shown. So a
page never repeats or misses a job that stays where it is, whatever comes, goes or is purged in between.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import Protocol

import msgspec
from msgspec import Struct

from muster.domain.job import JobStatus
from muster.errors import InvalidInput
from muster.ids import JobId

PAGE_MAX = 1000
_FEW_SETS = 4
# Sets that are not named after a status: jobs that wait for their time, and those that wait for others.
DELAYED = "delayed"
BLOCKED = "blocked"

Place = tuple[int, JobId]


class Lane(Struct, frozen=True):
    sets: tuple[str, ...]
    newest_first: bool = True


_RUNNING = Lane((JobStatus.IN_PROGRESS, JobStatus.ASSIGNED))
_WAITING = Lane((JobStatus.PENDING,), newest_first=False)
_DELAYED = Lane((DELAYED,), newest_first=False)
_BLOCKED = Lane((BLOCKED,), newest_first=False)
_ENDED = Lane((JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED))


class Fetch(Protocol):
    async def __call__(self, name: str, after: Place | None, limit: int, *, newest_first: bool) -> list[Place]:
        """Return up to `limit` places of one set that come after the given one; None: from the start."""
        ...


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    lane: int
    score: int
    job_id: JobId


def lanes_of(status: JobStatus | None, stuck: Sequence[str], served: Sequence[str]) -> tuple[Lane, ...]:
    """Everything: what runs, what waits in its order, what ended.

    `stuck` are the sets of jobs in line that nobody can run, `served` those of all others in line.
    """
    if status is None:
        return (_RUNNING, _WAITING, _DELAYED, _BLOCKED, _ENDED)
    if status is JobStatus.PENDING:
        in_line = Lane(tuple(served), newest_first=False) if stuck else _WAITING
        return (in_line, _DELAYED, _BLOCKED)
    if status is JobStatus.UNWORKABLE:
        return (Lane(tuple(stuck), newest_first=False),)
    return (Lane((status,)),)


async def read_page(
    lanes: tuple[Lane, ...], cursor: str | None, limit: int, fetch: Fetch
) -> tuple[list[JobId], str | None]:
    """Return the ids of one page and the cursor of the next; raise InvalidInput for a bad cursor or limit."""
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(f"limit must be 1 to {PAGE_MAX}, got {limit}", field="limit")
    first, after = _resume(cursor, lanes)
    found: list[tuple[int, Place]] = []
    for number, lane in enumerate(lanes[first:], start=first):
        missing = limit + 1 - len(found)  # one more than asked for tells whether there is a next page
        reads = [fetch(name, after, missing, newest_first=lane.newest_first) for name in lane.sets]
        # There can be as many sets as there are kinds of jobs; a few are read without a task for each.
        parts = [await read for read in reads] if len(reads) <= _FEW_SETS else await asyncio.gather(*reads)
        found += [(number, place) for place in islice(merge(*parts, reverse=lane.newest_first), missing)]
        after = None
        if len(found) > limit:
            number, (score, job_id) = found[limit - 1]  # noqa: PLW2901 - the loop ends here
            return [place[1] for _, place in found[:limit]], _encode(_Cursor(number, score, job_id))
    return [place[1] for _, place in found], None


def _resume(cursor: str | None, lanes: tuple[Lane, ...]) -> tuple[int, Place | None]:
    if cursor is None:
        return 0, None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=_Cursor)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise _bad_cursor() from None
    if not 0 <= place.lane < len(lanes) or abs(place.score) >= 2**53:
        raise _bad_cursor()
    return place.lane, (place.score, place.job_id)


def _encode(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()


def _bad_cursor() -> InvalidInput:
    return InvalidInput("cursor is not one that was handed out; start again without it", field="cursor")
