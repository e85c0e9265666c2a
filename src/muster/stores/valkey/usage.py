from collections.abc import Iterator, Mapping, Sequence

from muster.domain.usage import FIGURES, Spent, Sum, day_of, month_of
from muster.stores.valkey.server import Server

_BATCH_KEPT_S = 3600
_SUMS_PER_CALL = 200
_READ_AT_ONCE_MAX = 100
_BETWEEN = "|"  # figure, token, model; only the last may have it in it
_OF_THE_DAY, _OF_THE_MONTH = "tokens_today", "tokens_this_month"
_HOURS, _DAYS, _SPENT = "usage:hour:", "usage:day:", "spent:"


class ValkeyUsage:
    """A UsageStore: a hash for each hour and day, and of what tokens have had for each day and month."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def add(self, batch_id: str, sums: Sequence[Sum], spent: Mapping[str, Spent], at_ms: int) -> None:
        for start in range(0, len(sums), _SUMS_PER_CALL):
            part = sums[start : start + _SUMS_PER_CALL]
            words = [word for one in part for word in _words(one)]
            await self._server.run("add_usage", f"{batch_id}:{start}", _BATCH_KEPT_S, *words)
        words = [word for token, one in spent.items() for word in _spent_words(token, one, at_ms)]
        if words:
            await self._server.run("add_usage", f"{batch_id}:spent", _BATCH_KEPT_S, *words)

    async def spent(self, at_ms: int) -> dict[str, Spent]:
        found: dict[str, Spent] = {}
        for began_ms, wanted in ((day_of(at_ms), _OF_THE_DAY), (month_of(at_ms), _OF_THE_MONTH)):
            flat = await self._server.execute("HGETALL", self._server.key(f"{_SPENT}{began_ms}"))
            for field, count in zip(flat[::2], flat[1::2], strict=True):
                figure, _, token = field.decode().partition(_BETWEEN)
                if figure == wanted:  # on the first of a month both are in one hash
                    setattr(found.setdefault(token, Spent()), figure, int(count))
        return found

    async def read(self, from_ms: int, to_ms: int, *, hourly: bool) -> list[Sum]:
        family, listed = (_HOURS, "usage:hours") if hourly else (_DAYS, "usage:days")
        began = await self._server.execute("ZRANGE", self._server.key(listed), from_ms, f"({to_ms}", "BYSCORE")
        found: dict[tuple[int, str, str], Sum] = {}
        for began_ms in map(int, began):
            flat = await self._server.execute("HGETALL", self._server.key(f"{family}{began_ms}"))
            for field, count in zip(flat[::2], flat[1::2], strict=True):
                figure, token, model = field.decode().split(_BETWEEN, 2)
                one = found.setdefault((began_ms, token, model), Sum(at_ms=began_ms, token=token, model=model))
                setattr(one, figure, int(count))
        return list(found.values())

    async def forget(self, hours_before_ms: int, days_before_ms: int) -> None:
        for family, listed, before_ms in (
            (_HOURS, "usage:hours", hours_before_ms),
            (_DAYS, "usage:days", days_before_ms),
        ):
            index = self._server.key(listed)
            gone = await self._server.execute("ZRANGE", index, "-inf", f"({before_ms}", "BYSCORE")
            for start in range(0, len(gone), _READ_AT_ONCE_MAX):
                part = gone[start : start + _READ_AT_ONCE_MAX]
                await self._server.execute("UNLINK", *(self._server.key(f"{family}{int(one)}") for one in part))
                await self._server.execute("ZREM", index, *part)


def _words(one: Sum) -> Iterator[object]:
    for figure in FIGURES:
        if count := getattr(one, figure):
            field = _BETWEEN.join((figure, one.token, one.model))
            yield from (_HOURS, one.at_ms, field, count)
            yield from (_DAYS, day_of(one.at_ms), field, count)


def _spent_words(token: str, spent: Spent, at_ms: int) -> Iterator[object]:
    for figure, began_ms, count in (
        (_OF_THE_DAY, day_of(at_ms), spent.tokens_today),
        (_OF_THE_MONTH, month_of(at_ms), spent.tokens_this_month),
    ):
        if count:
            yield from (_SPENT, began_ms, f"{figure}{_BETWEEN}{token}", count)
