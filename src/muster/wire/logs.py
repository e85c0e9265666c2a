"""Logs: asked for by the control plane, sent by who has them in bounded chunks, as long as somebody reads."""

from typing import Literal

from msgspec import Struct

from muster.ids import NodeId


class LogInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One log with its older parts."""

    name: str
    bytes: int
    parts: int = 1
    changed_at_ms: int = 0


class LogLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`at_ms` is what the line itself says, else (`seen`) when it was first seen; None: nobody knows."""

    log: str
    text: str
    at_ms: int | None = None
    seen: bool = False
    level: str | None = None


class LogWish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which lines are wanted, of which logs (none named: of all).

    `tail` counts for each log, after all else has been sifted. Of `any_of` a line must have one, `grep` is a regular
    expression. Lines that tell no level count as `info`.
    """

    logs: tuple[str, ...] = ()
    tail: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    any_of: tuple[str, ...] = ()
    grep: str | None = None
    level: str | None = None
    follow: bool = False


class LogAsk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The control plane `plane_id` asks `node_id`. It asks again, with the same id, as long as it wants to know."""

    ask_id: str
    plane_id: str
    node_id: NodeId
    action: Literal["list", "read", "clear"]
    wish: LogWish = LogWish()


class LogChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an answer; an empty one says that its sender lives.

    `caught_up`: what was there is told, and what follows is new. `left_out` counts lines that went by too fast for
    whoever reads. `sender` tells control planes apart, which all answer for the same name.
    """

    node_id: NodeId
    ask_id: str
    sender: str
    number: int  # from 1; one that comes a second time was taken before
    lines: tuple[LogLine, ...] = ()
    logs: tuple[LogInfo, ...] = ()
    left_out: int = 0
    caught_up: bool = False
    ended: bool = False
    error: str | None = None
    error_code: str | None = None


class LogChunkReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Not `wanted`: nobody reads any more. Not `taken`: who reads is slow, the same chunk may come again."""

    wanted: bool
    taken: bool = True
