"""One token's account: what it has had of its allowance, judged before each request.

How many tokens an answer costs is known when it has ended, so a request is let in while anything is left, and what it
comes to is taken then: a limit is overshot by at most what is in flight at that moment.

Of limits per second and per minute the gateways tell each other what was taken as it is taken; what several let in
before they heard of it is missing afterwards. Budgets of days and months are summed up in the store.
"""

from collections.abc import Iterator

from msgspec import Struct

from muster.access.allowance import ANYTHING, Allowance
from muster.access.level import Level
from muster.access.takings import Takings
from muster.domain.usage import Spent, Use, day_of, month_of, next_day, next_month
from muster.errors import QuotaExceeded, RateLimited
from muster.wire.gateways import Taken

_MINUTE_S = 60.0
_DAY_MS = 86_400_000
_NOTHING = Spent()


class Left(Struct, frozen=True):
    """A limit per minute, what is left of it, and in how many seconds all of it is."""

    limit: int
    left: int
    full_in_s: float


class Account:
    """`own` is what was taken here and not yet written; `spent` what all together had when last asked."""

    __slots__ = (
        *("_calls", "_own", "_period", "_requests", "_spent", "_takings", "_tokens", "_told"),
        *("allowance", "rate_per_s", "token_id"),
    )

    def __init__(self, token_id: str, takings: Takings | None = None) -> None:
        self.token_id = token_id
        self.allowance = ANYTHING
        self.rate_per_s = 0.0
        self._calls: Level | None = None
        self._requests: Level | None = None
        self._tokens: Level | None = None
        self._takings = Takings() if takings is None else takings
        self._spent = Spent()
        self._own = Spent()
        self._told: Spent | None = None  # what is on its way to the store
        self._period = (0, 0)  # the day and month that `spent` is of

    def change(self, allowance: Allowance, rate_per_s: float = 0.0) -> None:
        """Set the limits; `rate_per_s` is how many requests of any kind come through, 0: any number."""
        self.allowance = allowance
        self.rate_per_s = rate_per_s
        self._calls = _level(self._calls, max(1.0, rate_per_s), rate_per_s)
        self._requests = _per_minute(self._requests, allowance.requests_per_min)
        self._tokens = _per_minute(self._tokens, allowance.tokens_per_min)

    # --- the judgement -----------------------------------------------------------------------------------------------

    def call(self, now_s: float) -> float:
        """Count one request of any kind and return 0; if it may not go, return in how many seconds one may."""
        calls = self._calls
        if calls is None:
            return 0.0
        if wait_s := calls.ask(now_s):
            return wait_s
        self._takings.of(self.token_id).calls += 1
        return 0.0

    def admit(self, now_ms: int, now_s: float) -> None:
        """Count one request to a model, or raise QuotaExceeded or RateLimited."""
        self.check_budgets(now_ms)
        tokens, requests = self._tokens, self._requests
        if tokens is not None and (wait_s := tokens.wait_s(1.0, now_s)):
            raise _used_up(tokens, "tokens", wait_s)
        if requests is not None:
            if wait_s := requests.ask(now_s):
                raise _used_up(requests, "requests", wait_s)
            self._takings.of(self.token_id).requests += 1

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
            self._takings.of(self.token_id).tokens += tokens
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
            part.tokens_today = 0
            if period[1] != self._period[1]:
                part.tokens_this_month = 0
        self._period = period

    # --- with the others ---------------------------------------------------------------------------------------------

    def took_elsewhere(self, taken: Taken, now_s: float) -> None:
        """Take what was let in at another gateway."""
        for level, count in self._each(taken):
            level.take(count, now_s)

    def missing(self, now_s: float) -> Taken | None:
        """Return what is missing in the limits; None: nothing."""
        levels = (self._calls, self._requests, self._tokens)
        missing = [0.0 if level is None else round(level.missing(now_s), 3) for level in levels]
        return Taken(*missing) if any(missing) else None

    def misses(self, missing: Taken, now_s: float) -> None:
        """Take over what another gateway knows to be missing: what both know of is in it once."""
        for level, count in self._each(missing):
            level.lower(count, now_s)

    def _each(self, counts: Taken) -> Iterator[tuple[Level, float]]:
        for level, count in (
            (self._calls, counts.calls),
            (self._requests, counts.requests),
            (self._tokens, counts.tokens),
        ):
            if level is not None:
                yield level, count

    def tell(self) -> Spent | None:
        """Return what was taken since the last time, to be written; None: nothing, or that is still on its way."""
        if self._told is not None or self._own == _NOTHING:
            return None
        self._told, self._own = self._own, Spent()
        return self._told

    def hear(self, spent: Spent, now_ms: int) -> None:
        """Take over what all have taken of their day and month, ours that was told among it."""
        self._turn(now_ms)
        self._spent = spent
        self._told = None


def _used_up(level: Level, unit: str, wait_s: float) -> RateLimited:
    return RateLimited(
        f"this token has used up its {level.limit} {unit} per minute; some are left in {wait_s:.3g} s",
        retry_after_s=wait_s,
    )


def _spent(used: int, limit: int, period: str, left_ms: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"this token has used {used} of its {limit} tokens for this {period} (UTC); an admin can raise its budget",
        retry_after_s=left_ms / 1000,
    )


def _per_minute(known: Level | None, limit: int | None) -> Level | None:
    return _level(known, limit or 0, (limit or 0) / _MINUTE_S)


def _level(known: Level | None, limit: float, per_s: float) -> Level | None:
    """Return a level for this limit, the known one if there is any; None where there is no limit."""
    if not per_s:
        return None
    if known is None:
        return Level(limit, per_s)
    known.resize(limit, per_s)
    return known


def _left(level: Level | None, now_s: float) -> Left | None:
    if level is None:
        return None
    left = level.left(now_s)
    return Left(round(level.limit), max(0, int(left)), (level.limit - left) / level.per_s)
