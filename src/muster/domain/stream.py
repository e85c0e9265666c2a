"""An answer that is kept for a while, so that a caller who lost the connection gets the rest."""

from enum import StrEnum

from msgspec import Struct


class StreamEnd(StrEnum):
    WHOLE = "whole"  # its last byte is there, be it that of an error
    CUT = "cut"  # a body that broke off where nothing can be said within it
    DROPPED = "dropped"  # it became too long to be kept


class StreamPart(Struct, frozen=True, kw_only=True):
    """What is added to a kept answer. `offset` is how long its body was before.

    `opening` comes with the first part: all but the body, as whoever writes it understands it. The answer is kept for
    `keep_s` from now on, and is `runner`'s to go on with for `lease_s`; 0: anybody's.
    """

    stream_id: str
    runner: str
    offset: int
    keep_s: float
    lease_s: float
    data: bytes = b""
    opening: bytes = b""
    end: StreamEnd | None = None


class KeptStream(Struct, frozen=True, kw_only=True):
    """What is kept of an answer; `data` is what was asked for of its body, which has `size` bytes so far.

    `running`: somebody goes on with it. `handed_over`: who did gave it back, rather than dying with it.
    """

    opening: bytes
    size: int
    data: bytes = b""
    end: StreamEnd | None = None
    running: bool = False
    handed_over: bool = False
