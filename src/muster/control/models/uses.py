"""When each model in memory was used last, and for whom it was loaded, as far as this control plane has seen it."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from muster.clock import Clock
from muster.domain.model import Model, canonical_model_name
from muster.domain.node import Node
from muster.domain.service import Service

InUse = Callable[[], Iterable[tuple[str, str]]]
InFlight = Callable[[], Mapping[str, int]]


class Use(Struct):
    used_ms: int
    resident: bool = False
    asked_by: str | None = None
    asked_ms: int | None = None


class Uses:
    """`in_use` are (worker, model) of our own gateway's requests, `in_flight` the counts of all gateways by worker."""

    def __init__(self, in_use: InUse, in_flight: InFlight, clock: Clock) -> None:
        self._in_use = in_use
        self._in_flight = in_flight
        self._clock = clock
        self._known: dict[tuple[str, str], Use] = {}
        self._memory_mb: dict[str, int] = {}

    def answered(self, used: Iterable[tuple[str, str]]) -> None:
        """Take note of workers, and of the model that each has answered for."""
        now_ms = self._clock.now_ms()
        for key, model in used:
            self.of(key, model).used_ms = now_ms

    def asked(self, key: str, model: str, by: str) -> None:
        use = self.of(key, model)
        use.asked_by, use.asked_ms = by, self._clock.now_ms()
        use.used_ms = use.asked_ms

    def of(self, key: str, model: str) -> Use:
        """Count one that was never seen before as used now: nobody knows better."""
        pair = key, canonical_model_name(model)
        known = self._known.get(pair)
        if known is None:
            known = self._known[pair] = Use(self._clock.now_ms())
        return known

    def seen(self, key: str, model: str) -> Use | None:
        return self._known.get((key, canonical_model_name(model)))

    def memory_mb(self, model: str) -> int | None:
        """Return what it took when it was in memory last, anywhere."""
        return self._memory_mb.get(canonical_model_name(model))

    def look(self, nodes: Iterable[Node]) -> None:
        """Take in what is in memory now, what is used of it, and forget the rest."""
        busy = Busy(self._in_use(), self._in_flight())
        now_ms = self._clock.now_ms()
        kept = {}
        for node in nodes:
            works = any(worker.current_jobs for worker in node.workers)
            for service in node.services:
                for model in service.models:
                    key = f"{node.node_id}/{service.name}", canonical_model_name(model.name)
                    if model.resident is False and key not in self._known:
                        continue
                    use = kept[key] = self.of(*key)
                    if model.memory_mb:
                        self._memory_mb[key[1]] = model.memory_mb
                    was, use.resident = use.resident, model.resident is not False
                    if (use.resident and not was) or works or busy.has(key[0], service, model):
                        use.used_ms = now_ms
        self._known = kept

    def busy(self) -> "Busy":
        return Busy(self._in_use(), self._in_flight())


class Busy:
    """What is at work: exactly, where our own gateway asks; by their service, where another one does."""

    def __init__(self, in_use: Iterable[tuple[str, str]], in_flight: Mapping[str, int]) -> None:
        self._own: dict[tuple[str, str], int] = {}
        by_others = dict(in_flight)
        for key, model in in_use:
            name = canonical_model_name(model)
            self._own[key, name] = self._own.get((key, name), 0) + 1
            by_others[key] = by_others.get(key, 0) - 1
        self._by_others = by_others

    def has(self, key: str, service: Service, model: Model) -> bool:
        if self._own.get((key, canonical_model_name(model.name))) or self._by_others.get(key, 0) > 0:
            return True
        return bool(service.slots_busy) and sum(known.resident is not False for known in service.models) == 1
