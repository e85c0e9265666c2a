"""What happened, as kept in the log and shown live."""

from typing import Any

from msgspec import Struct, field


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fact. `kind` is snake_case and past tense (`node_registered`, `job_claimed`); `key` names what it is about.

    Events of jobs may speak of several at once (`ids`): a claim of 64 jobs is one entry in the log.
    """

    kind: str
    key: str
    at_ms: int
    data: dict[str, Any] = field(default_factory=dict)
    ids: tuple[str, ...] = ()


class LoggedEvent(Struct, frozen=True, kw_only=True):
    """An event with its place in the log; ids grow and are the SSE ids."""

    id: str
    event: Event


class Emit(Struct, frozen=True):
    """An effect of a pure rule: its shell appends this event to the log."""

    event: Event
