"""One token's account: what it has had of its allowance, judged before each request.

How many tokens an answer costs is known when it has ended, so a request is let in while anything is left, and what it
comes to is taken then: a limit is overshot by at most what is in flight at that moment.
"""

from msgspec import Struct

from muster.access.allowance import ANYTHING, Allowance
from muster.domain.usage import Spent, Use, day_of, month_of, next_day, next_month
from muster.errors import QuotaExceeded, RateLimited

_MINUTE_S = 60.0
_DAY_MS = 86_400_000
_NOTHING = Spent()


class Level:
    """A limit per minute: full at first, filling steadily. What others take of it may make it negative."""

    __slots__ = ("_at_s", "_level", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at_s = float("-inf")

    def left(self, now_s: float) -> float:
        if now_s > self._at_s:
            level = self._level + (now_s - self._at_s) * self.limit / _MINUTE_S
            self._level = level if level < self.limit else float(self.limit)
            self._at_s = now_s
        return self._level

    def take(self, count: int, now_s: float) -> None:
        self._level = self.left(now_s) - count

    def wait_s(self, wanted: float, now_s: float) -> float:
        """Return in how many seconds so much is left; 0: it is."""
        missing = wanted - self.left(now_s)
        return missing * _MINUTE_S / self.limit if missing > 0 else 0.0

    def resize(self, limit: int) -> None:
        """Change the limit; what was taken is taken."""
        self._level += limit - self.limit
        self.limit = limit


class Left(Struct, frozen=True):
    """A limit per minute, what is left of it, and in how many seconds all of it is."""

    limit: int
    left: int
    full_in_s: float


class Account:
    """`own` is what was taken here and not yet told to the others; `spent` what all together had when last asked."""

    __slots__ = ("_heard", "_own", "_period", "_requests", "_spent", "_tokens", "_told", "allowance", "token_id")

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id
        self.allowance = ANYTHING
        self._requests: Level | None = None
        self._tokens: Level | None = None
        self._spent = Spent()
        self._own = Spent()
        self._heard = False
        self._told: Spent | None = None  # what is on its way to the others
        self._period = (0, 0)  # the day and month that `spent` is of

    def change(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._requests = _level(self._requests, allowance.requests_per_min)
        self._tokens = _level(self._tokens, allowance.tokens_per_min)

    # --- the judgement -----------------------------------------------------------------------------------------------

    def admit(self, now_ms: int, now_s: float) -> None:
        """Count one request, or raise QuotaExceeded or RateLimited."""
        self.check_budgets(now_ms)
        tokens, requests = self._tokens, self._requests
        if tokens is not None and tokens.left(now_s) < 1.0:
            raise _used_up(tokens, "tokens", now_s)
        if requests is not None:
            if requests.left(now_s) < 1.0:
                raise _used_up(requests, "requests", now_s)
            requests.take(1, now_s)
            self._own.requests_today += 1

    def check_budgets(self, now_ms: int) -> None:
        """Raise QuotaExceeded when nothing is left for this month or day."""
        a_month, a_day = self.allowance.tokens_per_month, self.allowance.tokens_per_day
        if a_month is not None and (used := self.tokens_this_month(now_ms)) >= a_month:
            raise _spent(used, a_month, "month", next_month(now_ms) - now_ms)
        if a_day is not None and (used := self.tokens_today(now_ms)) >= a_day:
            raise _spent(used, a_day, "day", next_day(now_ms) - now_ms)

    # --- what is used and left ---------------------------------------------------------------------------------------

    def take(self, use: Use, now_ms: int, now_s: float) -> None:
        """Take what an answer has come to."""
        self._turn(now_ms)
        own, tokens = self._own, use.tokens
        if self._tokens is not None:
            self._tokens.take(tokens, now_s)
        own.tokens_today += tokens
        own.tokens_this_month += tokens

    def tokens_today(self, now_ms: int) -> int:
        self._turn(now_ms)
        told = 0 if self._told is None else self._told.tokens_today
        return self._spent.tokens_today + self._own.tokens_today + told

    def tokens_this_month(self, now_ms: int) -> int:
        self._turn(now_ms)
        told = 0 if self._told is None else self._told.tokens_this_month
        return self._spent.tokens_this_month + self._own.tokens_this_month + told

    def requests_left(self, now_s: float) -> Left | None:
        return _left(self._requests, now_s)

    def tokens_left(self, now_s: float) -> Left | None:
        return _left(self._tokens, now_s)

    def _turn(self, now_ms: int) -> None:
        """Begin anew with each day and month."""
        if now_ms < self._period[0] + _DAY_MS:
            return
        period = (day_of(now_ms), month_of(now_ms))
        for part in (self._spent, self._own, *([] if self._told is None else [self._told])):
            part.requests_today = part.tokens_today = 0
            if period[1] != self._period[1]:
                part.tokens_this_month = 0
        self._period = period

    # --- with the others ---------------------------------------------------------------------------------------------

    def tell(self) -> Spent | None:
        """Return what was taken since the last time, to be told; None: nothing, or that is still on its way."""
        if self._told is not None or self._own == _NOTHING:
            return None
        self._told, self._own = self._own, Spent()
        return self._told

    def hear(self, spent: Spent, now_ms: int, now_s: float) -> None:
        """Take over what all have taken, ours that was told among it; what others took is missing in our minute."""
        self._turn(now_ms)
        told = self._told or _NOTHING
        if self._heard:  # what was before our time is no part of our minute
            for level, all_took, took, before in (
                (self._requests, spent.requests_today, told.requests_today, self._spent.requests_today),
                (self._tokens, spent.tokens_today, told.tokens_today, self._spent.tokens_today),
            ):
                if level is not None and all_took - took > before:
                    level.take(all_took - took - before, now_s)
        self._spent = spent
        self._told = None
        self._heard = True


def _used_up(level: Level, unit: str, now_s: float) -> RateLimited:
    wait_s = level.wait_s(1.0, now_s)
    return RateLimited(
        f"this token has used up its {level.limit} {unit} per minute; some are left in {wait_s:.3g} s",
        retry_after_s=wait_s,
    )


def _spent(used: int, limit: int, period: str, left_ms: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"this token has used {used} of its {limit} tokens for this {period} (UTC); an admin can raise its budget",
        retry_after_s=left_ms / 1000,
    )


def _level(known: Level | None, limit: int | None) -> Level | None:
    if limit is None or known is None:
        return None if limit is None else Level(limit)
    known.resize(limit)
    return known


def _left(level: Level | None, now_s: float) -> Left | None:
    if level is None:
        return None
    return Left(level.limit, max(0, int(level.left(now_s))), level.wait_s(level.limit, now_s))
