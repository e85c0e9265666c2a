"""How workers behave where it counts: every attempt is watched, and tells how long to wait and whom to avoid."""

from collections.abc import Callable

from muster.clock import Clock
from muster.domain.model import canonical_model_name
from muster.gateway.dialects.call import Call
from muster.gateway.limits import GatewayLimits
from muster.gateway.trust.patience import Key, Patience
from muster.gateway.trust.quarantine import Change, Gravity, Now, Quarantine
from muster.placement.candidate import Candidate

_FIRST_SERVER_ERROR = 500
_BUSY_OR_GONE = frozenset({502, 503, 504})
_SILENT = frozenset({"first_byte_timeout", "idle_timeout"})
_BUSY = "status_429"  # it says that it has enough to do
_SIGNS_MAX = 4096


class Conduct:
    """What is known of all workers."""

    def __init__(self, limits: GatewayLimits, clock: Clock, on_change: Callable[[Change], None]) -> None:
        self.clock = clock
        self.patience = Patience(limits)
        self.quarantine = Quarantine(limits, on_change)
        self._signs_s: dict[str, float] = {}  # when a worker was last heard, by whichever request

    def avoided(self, model: str) -> frozenset[str]:
        return self.quarantine.avoided(canonical_model_name(model))

    def watch(self, candidate: Candidate, call: Call, now_s: float, in_flight: int) -> "Watch":
        """Begin to watch one attempt; `in_flight` counts it too."""
        return Watch(self, candidate, call, now_s, crowded=in_flight > (candidate.slots or 1))

    def heard(self, worker: str, at_s: float) -> None:
        if len(self._signs_s) >= _SIGNS_MAX:
            self._signs_s.clear()
        self._signs_s[worker] = at_s

    def last_sign_s(self, worker: str) -> float:
        return self._signs_s.get(worker, 0.0)


class Watch:
    """One attempt on a worker. Exactly one of `ended`, `failed`, `let_go` counts: the first."""

    __slots__ = (
        "_began_s",
        "_conduct",
        "_heard_s",
        "_key",
        "_learns",
        "_longest_s",
        "_over",
        "_size",
        "_streams",
        "crowded",
    )

    def __init__(self, conduct: Conduct, candidate: Candidate, call: Call, now_s: float, *, crowded: bool) -> None:
        self._conduct = conduct
        name = canonical_model_name(call.model)
        self._key: Key = (candidate.key, name)
        self._began_s = now_s
        self.crowded = crowded
        self._heard_s: float | None = None
        self._longest_s = 0.0
        self._over = False
        self._size = len(call.body)
        self._streams = call.stream
        # Without a stream the first byte comes with the last, and nobody knows how long the answer is to be; a model
        # that is not loaded takes as long as that takes. Neither is like what came before.
        model = candidate.models.get(name)
        loaded = model is None or model.resident is not False
        self._learns = loaded and (call.stream or call.capability == "embedding")
        if conduct.quarantine.cases:
            conduct.quarantine.began(self._key)

    @property
    def first_byte_s(self) -> float:
        """How long the answer's first byte may take; looked for only when somebody wonders, which is seldom."""
        patience = self._conduct.patience
        return patience.first_byte_s(self._key, self._size) if self._learns else patience.most_s

    @property
    def patience_s(self) -> float:
        """How long the worker may be silent now, when its caller has been answered in part."""
        return self.first_byte_s if self._heard_s is None else self._conduct.patience.silence_s(self._key)

    def heard(self, now_s: float) -> None:
        """Note that a piece of the answer has come."""
        if self._heard_s is None:
            if self._learns:
                self._conduct.patience.began(self._key, self._size, now_s - self._began_s)
        elif now_s - self._heard_s > self._longest_s:
            self._longest_s = now_s - self._heard_s
        self._heard_s = now_s

    def excuse(self, now_s: float) -> None:
        """Count the silence until now as somebody else's."""
        if self._heard_s is not None:
            self._heard_s = now_s

    def is_late(self, now_s: float, since_s: float) -> bool:
        """Tell whether the beginning of the answer is overdue.

        A worker that has more to do than it can do at once works as long as anybody hears of it, up to the setting.
        """
        if now_s - since_s > self._conduct.patience.most_s:
            return True
        if self.crowded:
            since_s = max(since_s, self._conduct.last_sign_s(self._key[0]))
        return now_s - since_s > self.first_byte_s

    def alive(self, now_s: float) -> None:
        self._conduct.heard(self._key[0], now_s)

    def ended(self, status: int) -> None:
        """Judge an answer that has come whole. An error of the engine may be the request's fault."""
        if self._over:
            return
        if status >= _FIRST_SERVER_ERROR:
            self.failed(f"status_{status}")
            return
        self._over = True
        several = self._streams and self._longest_s > 0
        self._conduct.patience.answered(self._key, self._longest_s if several else None)
        self._conduct.quarantine.succeeded(self._key, self._began_s)

    def failed(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if reason == _BUSY:
            self._conduct.quarantine.let_go(self._key, self._began_s)
            return
        if reason in _SILENT:
            self._conduct.patience.gave_up(self._key)
        clock = self._conduct.clock
        self._conduct.quarantine.failed(
            self._key,
            _gravity(reason),
            reason,
            whole=reason in {"connect", "connect_timeout"},
            began_s=self._began_s,
            now=Now(clock.monotonic_s(), clock.now_ms()),
        )

    def let_go(self) -> None:
        if not self._over:
            self._over = True
            self._conduct.quarantine.let_go(self._key, self._began_s)


def _gravity(reason: str) -> Gravity:
    if reason in _SILENT or reason == "connect_timeout":
        return Gravity.SILENT
    if reason.startswith("status_"):
        return Gravity.FAILED if int(reason[7:]) in _BUSY_OR_GONE else Gravity.LIGHT
    return Gravity.FAILED
