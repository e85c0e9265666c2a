"""When a machine belongs to its owner, and not to the fleet: by programs that run, by a busy GPU, by the hour. Pure."""

import re
from collections.abc import Collection, Iterable
from datetime import datetime, time, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from muster.domain.gpu import Gpu
from muster.errors import InvalidInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")
_PEAK_S = 10.0  # a GPU that is busy for less is no sign of anybody


class OwnerRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[owner]`: what shows that the owner uses the machine.

    `processes` are names of programs. `gpu_busy_percent` counts what is none of this node's services. `hours` are the
    owner's, by the machine's clock: `Mon-Fri 09:00-17:30`, `22:00-06:00`. What runs may end for `grace_s`; the fleet
    has the machine again once nothing of it was seen for `return_after_s`.
    """

    processes: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    gpu_busy_percent: Annotated[float, Meta(gt=0, le=100)] | None = None
    hours: tuple[str, ...] = ()
    grace_s: Annotated[float, Meta(ge=0)] = 30.0
    return_after_s: Annotated[float, Meta(ge=0)] = 60.0
    look_every_s: Annotated[float, Meta(gt=0)] = 2.0


class Hours(Struct, frozen=True):
    """From `begins` to `ends` on `days` (0 is Monday); an end that is no later is that of the day after."""

    text: str
    days: frozenset[int]
    begins: time
    ends: time

    def has(self, now: datetime) -> bool:
        at = now.time()
        if self.begins < self.ends:
            return now.weekday() in self.days and self.begins <= at < self.ends
        today = now.weekday() in self.days and at >= self.begins
        return today or ((now - timedelta(days=1)).weekday() in self.days and at < self.ends)


def parse_hours(text: str) -> Hours:
    match = _HOURS.fullmatch(text.strip().lower())
    if match is None or not {match[1], match[2]} <= {None, *_DAYS}:
        raise InvalidInput(f"{text!r} are no hours: write them as Mon-Fri 09:00-17:30, or 22:00-06:00", field="hours")
    try:
        begins, ends = time(int(match[3]), int(match[4])), time(int(match[5]), int(match[6]))
    except ValueError:
        raise InvalidInput(f"{text!r} has a time that no clock shows", field="hours") from None
    if match[1] is None:
        return Hours(text, frozenset(range(7)), begins, ends)
    first = _DAYS.index(match[1])
    last = first if match[2] is None else _DAYS.index(match[2])
    days = frozenset((first + day) % 7 for day in range((last - first) % 7 + 1))
    return Hours(text, days, begins, ends)


class Seen(Struct, frozen=True, kw_only=True):
    """What was seen of the machine: names of all programs that run, its GPUs, and the time of its own clock."""

    programs: Collection[str]
    gpus: Iterable[Gpu]
    now: datetime


class OwnerWatch:
    """Says to whom the machine is yielded, look by look."""

    def __init__(self, rules: OwnerRules) -> None:
        self._rules = rules
        self._hours = tuple(map(parse_hours, rules.hours))
        self._busy_since_s: float | None = None
        self._seen_s = 0.0
        self._to: str | None = None

    def see(self, seen: Seen, now_s: float) -> str | None:
        if (to := self._owner(seen, now_s)) is not None:
            self._seen_s = now_s
            self._to = to
        elif self._to is not None and now_s - self._seen_s >= self._rules.return_after_s:
            self._to = None
        return self._to

    def _owner(self, seen: Seen, now_s: float) -> str | None:
        running = {program.lower() for program in seen.programs}
        for name in self._rules.processes:
            if name.lower() in running:
                return name
        for hours in self._hours:
            if hours.has(seen.now):
                return f"its owner ({hours.text})"
        return self._gpu_user(seen.gpus, now_s)

    def _gpu_user(self, gpus: Iterable[Gpu], now_s: float) -> str | None:
        limit = self._rules.gpu_busy_percent
        others = [owner for gpu in gpus for owner in gpu.owners or () if not owner.service]
        busy = max(others, key=lambda owner: owner.utilization_percent or 0.0, default=None)
        if limit is None or busy is None or (busy.utilization_percent or 0.0) < limit:
            self._busy_since_s = None
            return None
        since_s = self._busy_since_s = now_s if self._busy_since_s is None else self._busy_since_s
        return f"{busy.name} on the GPU" if now_s - since_s >= _PEAK_S else None
