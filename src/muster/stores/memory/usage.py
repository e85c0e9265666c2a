from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from muster.domain.usage import Spent, Sum, day_of, month_of

_Sums = dict[tuple[int, str, str], Sum]


class MemoryUsage:
    """A UsageStore."""

    def __init__(self) -> None:
        self._batches: set[str] = set()
        self._hours: _Sums = {}
        self._days: _Sums = {}
        self._day: dict[tuple[int, str], Spent] = {}
        self._month: dict[tuple[int, str], Spent] = {}

    async def add(self, batch_id: str, sums: Sequence[Sum], spent: Mapping[str, Spent], at_ms: int) -> None:
        if batch_id in self._batches:
            return
        self._batches.add(batch_id)
        for one in sums:
            for kept, began_ms in ((self._hours, one.at_ms), (self._days, day_of(one.at_ms))):
                known = kept.setdefault(
                    (began_ms, one.token, one.model), Sum(at_ms=began_ms, token=one.token, model=one.model)
                )
                known.add(one)
        for token, more in spent.items():
            day = self._day.setdefault((day_of(at_ms), token), Spent())
            day.tokens_today += more.tokens_today
            month = self._month.setdefault((month_of(at_ms), token), Spent())
            month.tokens_this_month += more.tokens_this_month

    async def spent(self, at_ms: int) -> dict[str, Spent]:
        found = {token: replace(spent) for (began_ms, token), spent in self._day.items() if began_ms == day_of(at_ms)}
        for (began_ms, token), spent in self._month.items():
            if began_ms == month_of(at_ms):
                found.setdefault(token, Spent()).tokens_this_month = spent.tokens_this_month
        return found

    async def read(self, from_ms: int, to_ms: int, *, hourly: bool) -> list[Sum]:
        kept = self._hours if hourly else self._days
        return [replace(one) for one in kept.values() if from_ms <= one.at_ms < to_ms]

    async def forget(self, hours_before_ms: int, days_before_ms: int) -> None:
        self._hours = {key: one for key, one in self._hours.items() if one.at_ms >= hours_before_ms}
        self._days = {key: one for key, one in self._days.items() if one.at_ms >= days_before_ms}
