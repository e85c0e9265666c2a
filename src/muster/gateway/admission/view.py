"""The lines as people see them."""

from msgspec import Struct


class WaitingCaller(Struct, frozen=True, kw_only=True):
    """`weight` is the share of turns that its token has."""

    name: str
    requests: int
    weight: float


class LineView(Struct, frozen=True, kw_only=True):
    """Who waits for a slot of one model.

    `oldest_s` is how long the one has waited who waits longest; `answer_s` how long an answer took lately, null where
    none was seen.
    """

    model: str
    waiting: int
    oldest_s: float
    answer_s: float | None
    callers: list[WaitingCaller]
