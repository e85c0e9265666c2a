"""What was used: by one request, and summed by time, token and model."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

ANONYMOUS = "anonymous"  # who needed no token

_MS_PER_HOUR = 3_600_000


class Use(Struct, frozen=True, kw_only=True, gc=False):
    """One answer. `energy_mwh` is in thousandths of a watt-hour and None where the power of its worker is unknown."""

    token: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    worker: str = ""
    estimated: bool = False  # nobody told the number of its tokens
    worker_ms: int = 0
    energy_mwh: int | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Sum(Struct, kw_only=True):
    """Answers of one model to one token within an hour or a day. `metered` are those whose energy is in the sum."""

    at_ms: int  # when the hour or day began
    token: str
    model: str
    requests: int = 0
    estimated: int = 0  # of the requests
    metered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    worker_ms: int = 0
    energy_mwh: int = 0

    def take(self, use: Use) -> None:
        self.requests += 1
        self.estimated += use.estimated
        self.prompt_tokens += use.prompt_tokens
        self.completion_tokens += use.completion_tokens
        self.worker_ms += use.worker_ms
        if use.energy_mwh is not None:
            self.metered += 1
            self.energy_mwh += use.energy_mwh

    def add(self, other: "Sum") -> None:
        for figure in FIGURES:
            setattr(self, figure, getattr(self, figure) + getattr(other, figure))


FIGURES = ("requests", "estimated", "metered", "prompt_tokens", "completion_tokens", "worker_ms", "energy_mwh")


class Spent(Struct, kw_only=True):
    """What one token has had since the beginning of the day and of the month, at all control planes."""

    tokens_today: int = 0
    tokens_this_month: int = 0


class By(StrEnum):
    WHOSE = "token"
    MODEL = "model"
    DAY = "day"
    HOUR = "hour"


def hour_of(at_ms: int) -> int:
    return at_ms - at_ms % _MS_PER_HOUR


def day_of(at_ms: int) -> int:
    """Return when its day began; days are those of UTC, the same for all control planes."""
    return at_ms - at_ms % (24 * _MS_PER_HOUR)


def month_of(at_ms: int) -> int:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return round(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp() * 1000)


def next_day(at_ms: int) -> int:
    return day_of(at_ms) + 24 * _MS_PER_HOUR


def next_month(at_ms: int) -> int:
    return month_of(month_of(at_ms) + 32 * 24 * _MS_PER_HOUR)


def summed(sums: Iterable[Sum], by: Sequence[By]) -> list[Sum]:
    """Sum up what does not differ in what is asked for; the rest is empty, or 0. In the order of time, token, model."""
    found: dict[tuple[int, str, str], Sum] = {}
    for one in sums:
        at_ms = one.at_ms if By.HOUR in by else day_of(one.at_ms) if By.DAY in by else 0
        key = (at_ms, one.token if By.WHOSE in by else "", one.model if By.MODEL in by else "")
        total = found.get(key)
        if total is None:
            total = found[key] = Sum(at_ms=key[0], token=key[1], model=key[2])
        total.add(one)
    return [found[key] for key in sorted(found)]
