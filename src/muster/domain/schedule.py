"""A job that comes again and again."""

from enum import StrEnum

from msgspec import Struct

from muster.domain.job import JobSpec


class Missed(StrEnum):
    """What becomes of the times that nobody noticed, because no control plane ran."""

    LAST = "last"  # the last of them is made up for
    SKIP = "skip"
    ALL = "all"  # each of them, within bounds


class Schedule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`cron` (five fields, in `time_zone`) or `every_s` from `created_at` on says when; `job` is what is submitted.

    `next_at` and the last job are the store's to tell; a paused one has no next time.
    """

    schedule_id: str
    job: JobSpec
    cron: str | None = None
    time_zone: str = "UTC"
    every_s: float | None = None
    missed: Missed = Missed.LAST
    paused: bool = False
    created_at: int = 0
    next_at: int | None = None
    last_at: int | None = None
    last_job_id: str | None = None
