"""Workers that fail in the data path while they say that they are well: kept away, tried, let back step by step.

Pure: times come in. A worker is out for one model, or, where not even a connection to it can be had, for all. When its
time is over it is probed; a good probe lets one request at a time to it, each good answer twice as many, until it is
back. Any failure meanwhile puts it out again, for twice as long.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum

from msgspec import Struct

from muster.domain.event import Event
from muster.gateway.limits import GatewayLimits
from muster.gateway.trust.patience import Key

_LOOKED_AT = 16  # outcomes
_TOO_MUCH = 3  # gravity of the last outcomes together
_IN_A_ROW = 5  # outcomes that were all bad, however light
_BACK = 16  # requests at a time, from which on a worker is not held back any more
_KEPT_MAX = 4096
_NOBODY: frozenset[str] = frozenset()


class Gravity(IntEnum):
    """How much an outcome says about the worker. The light ones may be the request's fault."""

    GOOD = 0
    FAILED = 1
    SILENT = 2  # its caller had to wait for nothing
    LIGHT = 3


_WEIGHT = {Gravity.GOOD: 0, Gravity.FAILED: 1, Gravity.SILENT: 2, Gravity.LIGHT: 0}


class Standing(StrEnum):
    OUT = "out"
    PROBED = "probed"
    RETURNING = "returning"


class Quarantined(Struct, frozen=True, kw_only=True):
    """A worker that is kept from requests. `model` is null where it is kept from all; `retry_in_s` until the probe."""

    worker: str
    model: str | None
    standing: Standing
    reason: str
    since_ms: int
    times: int
    allowed: int
    retry_in_s: float


class Change(Struct, frozen=True, kw_only=True):
    """A worker was put out, or is back (`reason` is None then)."""

    worker: str
    model: str | None
    reason: str | None
    for_s: float = 0.0

    def event(self, at_ms: int) -> Event:
        data = {} if self.model is None else {"model": self.model}
        if self.reason is None:
            return Event(kind="worker_trusted_again", key=self.worker, at_ms=at_ms, data=data)
        about = {"reason": self.reason, "for_s": self.for_s}
        return Event(kind="worker_quarantined", key=self.worker, at_ms=at_ms, data=data | about)


class _Case:
    """A worker that is not trusted."""

    def __init__(self, asked_for: str) -> None:
        self.asked_for = asked_for  # the model that a probe may ask for
        self.reason = ""
        self.standing = Standing.OUT
        self.since_ms = 0
        self.until_s = 0.0
        self.valid_from_s = 0.0  # what was begun before says nothing any more
        self.times = 0
        self.allowed = 0
        self.running = 0

    def ended(self, began_s: float) -> bool:
        """Count an attempt as over; return whether it says anything: it was begun since the worker is let back."""
        if began_s < self.valid_from_s:
            return False
        self.running = max(0, self.running - 1)
        return True


class Probe(Struct, frozen=True, kw_only=True):
    """A worker that is to be tried, with a model that it failed with."""

    key: Key
    worker: str
    model: str


_ALL = ""  # in place of a model: all that the worker has


class Quarantine:
    def __init__(self, limits: GatewayLimits, on_change: Callable[[Change], None]) -> None:
        self._limits = limits
        self._on_change = on_change
        self._outcomes: dict[Key, deque[Gravity]] = {}  # of those that failed lately; the others are not remembered
        self.cases: dict[Key, _Case] = {}  # mostly none: then nobody has to ask further

    def avoided(self, model: str) -> frozenset[str]:
        """Return the workers that a request for this model is not to go to, if there is any other."""
        if not self.cases:
            return _NOBODY
        return frozenset(
            worker
            for (worker, about), case in self.cases.items()
            if about in (_ALL, model) and case.running >= case.allowed
        )

    def began(self, key: Key) -> None:
        """Count what runs on a worker that is let back step by step."""
        for case in self._cases_of(key):
            case.running += 1

    def let_go(self, key: Key, began_s: float) -> None:
        """Take an attempt back that has told nothing about the worker: its caller left."""
        for case in self._cases_of(key):
            case.ended(began_s)

    def succeeded(self, key: Key, began_s: float) -> None:
        outcomes = self._outcomes.get(key)
        if outcomes is not None:
            outcomes.append(Gravity.GOOD)
            if not any(outcomes):
                del self._outcomes[key]
        if not self.cases:
            return
        for about in (key, (key[0], _ALL)):
            case = self.cases.get(about)
            if case is not None and case.ended(began_s):
                case.allowed *= 2
                if case.allowed >= _BACK:
                    self._dismiss(about)

    def failed(self, key: Key, gravity: Gravity, reason: str, *, whole: bool, began_s: float, now: "Now") -> None:
        """Judge a failure; `whole`: it was not the model's, for there was no connection."""
        known = False
        for about in (key, (key[0], _ALL)):
            case = self.cases.get(about)
            if case is not None:
                known = True
                if case.ended(began_s):
                    self._put_out(about, case, reason, now)
        if known:
            return
        about = (key[0], _ALL) if whole else key
        outcomes = self._outcomes.get(about)
        if outcomes is None:
            if len(self._outcomes) >= _KEPT_MAX:
                self._outcomes.pop(next(iter(self._outcomes)))
            outcomes = self._outcomes[about] = deque(maxlen=_LOOKED_AT)
        outcomes.append(gravity)
        too_much = sum(_WEIGHT[outcome] for outcome in outcomes) >= _TOO_MUCH
        if too_much or (len(outcomes) >= _IN_A_ROW and all(list(outcomes)[-_IN_A_ROW:])):
            del self._outcomes[about]
            case = self.cases[about] = _Case(asked_for=key[1])
            case.since_ms = now.ms
            self._put_out(about, case, reason, now)

    # --- probes ------------------------------------------------------------------------------------------------------

    def due(self, now_s: float) -> Iterator[Probe]:
        """Yield who is to be probed now; each must be told of by `probed`, or is yielded never again."""
        for key, case in list(self.cases.items()):
            if case.standing is Standing.OUT and now_s >= case.until_s:
                case.standing = Standing.PROBED
                yield Probe(key=key, worker=key[0], model=case.asked_for)

    def probed(self, probe: Probe, problem: str | None, now: "Now") -> None:
        case = self.cases.get(probe.key)
        if case is None or case.standing is not Standing.PROBED:
            return
        if problem is not None:
            self._put_out(probe.key, case, problem, now)
            return
        case.standing = Standing.RETURNING
        case.allowed = 1
        case.running = 0
        case.valid_from_s = now.s

    def gone(self, probe: Probe) -> None:
        """Forget a worker that is not in the fleet any more, or has lost the model."""
        if self.cases.pop(probe.key, None) is not None:
            self._on_change(Change(worker=probe.worker, model=probe.key[1] or None, reason=None))

    # --- for people --------------------------------------------------------------------------------------------------

    def view(self, now_s: float) -> list[Quarantined]:
        return [
            Quarantined(
                worker=worker,
                model=model or None,
                standing=case.standing,
                reason=case.reason,
                since_ms=case.since_ms,
                times=case.times,
                allowed=case.allowed,
                retry_in_s=round(max(0.0, case.until_s - now_s), 1),
            )
            for (worker, model), case in sorted(self.cases.items())
        ]

    def reasons(self, model: str | None) -> dict[str, str]:
        """Return who is avoided for a model, and why; without a model those avoided for all."""
        return {
            worker: case.reason
            for (worker, about), case in self.cases.items()
            if about in (_ALL, model) and case.running >= case.allowed
        }

    def _cases_of(self, key: Key) -> Iterator[_Case]:
        if self.cases:
            for about in (key, (key[0], _ALL)):
                case = self.cases.get(about)
                if case is not None:
                    yield case

    def _put_out(self, about: Key, case: _Case, reason: str, now: "Now") -> None:
        limits = self._limits
        for_s = min(limits.quarantine_max_s, limits.quarantine_s * 2.0 ** min(case.times, 16))
        case.times += 1
        case.standing = Standing.OUT
        case.reason = reason
        case.allowed = case.running = 0
        case.until_s = now.s + for_s
        case.valid_from_s = math.inf  # until it returns nothing counts
        self._on_change(Change(worker=about[0], model=about[1] or None, reason=reason, for_s=for_s))

    def _dismiss(self, about: Key) -> None:
        del self.cases[about]
        self._on_change(Change(worker=about[0], model=about[1] or None, reason=None))


class Now(Struct, frozen=True):
    """One moment by both clocks."""

    s: float
    ms: int
