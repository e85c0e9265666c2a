"""Queues and customers: what is said of many jobs at once. A queue is all jobs of one service."""

from msgspec import Struct

from muster.ids import JobId

ALL_SERVICES = "*"


class QueueFigures(Struct, frozen=True, kw_only=True):
    """`waiting` are in line, `unworkable` those of them that nobody who is there can run.

    `first` are the first in line of each priority, of which one waits longest.

    The rates are jobs a minute over the last few minutes.
    """

    service: str
    paused: bool = False
    waiting: int = 0
    unworkable: int = 0
    running: int = 0
    submitted_per_min: float = 0.0
    completed_per_min: float = 0.0
    failed_per_min: float = 0.0
    first: tuple[JobId, ...] = ()


class CustomerTerms(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How large a customer's share is among those who wait, and how many of its jobs may run and wait; None: any."""

    weight: int = 1
    running_max: int | None = None
    waiting_max: int | None = None


class CustomerFigures(Struct, frozen=True, kw_only=True):
    """`terms` is None where nothing is set. `waiting` are all jobs that neither run nor have ended."""

    name: str
    terms: CustomerTerms | None = None
    waiting: int = 0
    running: int = 0
