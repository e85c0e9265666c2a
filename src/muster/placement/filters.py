"""Why a candidate may not serve a wish. A new reason is one function and one line in FILTERS.

What a candidate is comes before how it is now, so that the first reason found is the one that lasts longest.
"""

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from muster.domain.node import Health
from muster.domain.service import ServiceStatus
from muster.placement.candidate import Candidate
from muster.placement.wish import Wish

_OTHERS_TOLD = 3
_MB_PER_GB = 1024
_TAKES_WORK = frozenset({Health.HEALTHY, Health.DEGRADED, Health.REGISTERING})


class Filter(Protocol):
    """Return what speaks against the candidate, as the end of a sentence that begins with its key; None: nothing."""

    __name__: str

    def __call__(self, candidate: Candidate, wish: Wish, /) -> str | None: ...


class Rejection(Struct, frozen=True, kw_only=True):
    """Why one candidate was passed over; `filter` is the name of the rule."""

    candidate: Candidate
    filter: str
    reason: str

    @property
    def key(self) -> str:
        return self.candidate.key


def model(candidate: Candidate, wish: Wish) -> str | None:
    if wish.model is None or candidate.model(wish.model) is not None:
        return None
    return f"does not have the model {wish.model}"


def capability(candidate: Candidate, wish: Wish) -> str | None:
    """Ask the wished model; without one any will do, and a service whose models are unknown may try."""
    if not wish.capability:
        return None
    if wish.model is not None:
        wished = candidate.model(wish.model)
        if wished is None or wish.capability in wished.capabilities:
            return None
        return f"does not offer {wish.capability} with the model {wish.model}"
    if not candidate.models or any(wish.capability in offered.capabilities for offered in candidate.models.values()):
        return None
    return f"does not offer {wish.capability} with any of its models"


def dialect(candidate: Candidate, wish: Wish) -> str | None:
    if not wish.dialects.isdisjoint(candidate.dialects):
        return None
    return f"speaks {' and '.join(candidate.dialects) or 'no known dialect'} only"


def node(candidate: Candidate, wish: Wish) -> str | None:
    return None if wish.node_id in (None, candidate.node_id) else f"is not on node {wish.node_id}"


def pool(candidate: Candidate, wish: Wish) -> str | None:
    """Take a pool's name for that of a group of nodes, of a service, or of a service on a node."""
    if wish.pool in (None, candidate.pool, candidate.service, candidate.key):
        return None
    return f"is in {candidate.pool or 'no pool'}, not in {wish.pool}"


def labels(candidate: Candidate, wish: Wish) -> str | None:
    for key, value in wish.labels.items():
        found = candidate.labels.get(key)
        if found != value:
            return f"needs the label {key}={value}, {'not set' if found is None else found} here"
    return None


def connected(candidate: Candidate, _: Wish) -> str | None:
    return None if candidate.connected else "is disconnected"


def health(candidate: Candidate, _: Wish) -> str | None:
    return None if candidate.health in _TAKES_WORK else f"is {candidate.health}"


def late(candidate: Candidate, _: Wish) -> str | None:
    return "has missed heartbeats" if candidate.late else None


def draining(candidate: Candidate, _: Wish) -> str | None:
    return "is draining" if candidate.draining else None


def service(candidate: Candidate, _: Wish) -> str | None:
    return None if candidate.status is ServiceStatus.RUNNING else f"has its service {candidate.status}"


def resident(candidate: Candidate, wish: Wish) -> str | None:
    """Keep requests from loading a model where others would have to make room for it: whoever can wake it decides."""
    wished = None if wish.model is None else candidate.model(wish.model)
    if not candidate.on_demand or wished is None or wished.resident is not False:
        return None
    return f"has {wish.model} on disk only"


def gpu(candidate: Candidate, _: Wish) -> str | None:
    return None if candidate.gpu_trouble is None else f"has its GPU out of service: {candidate.gpu_trouble}"


def memory(candidate: Candidate, wish: Wish) -> str | None:
    """Judge by free memory, else by all there is; unknown is neither 0 nor enough. A resident model has its share."""
    if wish.min_memory_mb is None or is_warm(candidate, wish):
        return None
    needs_mb, free_mb, total_mb = wish.min_memory_mb, candidate.memory_free_mb, candidate.memory_total_mb
    have_mb = total_mb if free_mb is None else free_mb
    if have_mb is None:
        return f"needs {_size(needs_mb)} of GPU memory, unknown here"
    if have_mb >= needs_mb:
        return None
    needs, have = _sizes(needs_mb, have_mb)
    if free_mb is None:
        return f"needs {needs} of GPU memory, {have} in all"
    others = [f"{_size(used_mb)} used by {name}" for name, used_mb in candidate.memory_of_others[:_OTHERS_TOLD]]
    return f"needs {needs} of GPU memory, {have} free{': ' if others else ''}{' and '.join(others)}"


def excluded(candidate: Candidate, wish: Wish) -> str | None:
    return "was tried already" if candidate.key in wish.exclude else None


def quarantined(candidate: Candidate, wish: Wish) -> str | None:
    why = wish.quarantined.get(candidate.key)
    return None if why is None else f"is quarantined by the gateway: {why}"


FILTERS: tuple[Filter, ...] = (
    model,
    capability,
    dialect,
    node,
    pool,
    labels,
    connected,
    health,
    late,
    draining,
    service,
    resident,
    gpu,
    memory,
    quarantined,
    excluded,
)


def rejections(candidate: Candidate, wish: Wish) -> Iterator[Rejection]:
    """Yield every reason against a candidate, the most lasting first."""
    for rule in FILTERS:
        reason = rule(candidate, wish)
        if reason is not None:
            yield Rejection(candidate=candidate, filter=rule.__name__, reason=reason)


def first_rejection(candidate: Candidate, wish: Wish) -> Rejection | None:
    """Return the most lasting reason; the others are not looked for."""
    for rule in FILTERS:
        reason = rule(candidate, wish)
        if reason is not None:
            return Rejection(candidate=candidate, filter=rule.__name__, reason=reason)
    return None


def is_warm(candidate: Candidate, wish: Wish) -> bool:
    """Tell whether the wished model is known to be in memory already."""
    wished = None if wish.model is None else candidate.model(wish.model)
    return wished is not None and wished.resident is True


def _size(mb: int) -> str:
    return f"{round(mb / _MB_PER_GB, 1):g} GB" if mb >= _MB_PER_GB else f"{mb} MB"


def _sizes(needs_mb: int, have_mb: int) -> tuple[str, str]:
    """Say both in GB where that tells them apart, the second one without its unit."""
    needs, have = (f"{round(mb / _MB_PER_GB, 1):g}" for mb in (needs_mb, have_mb))
    if needs_mb < _MB_PER_GB or needs == have:
        return f"{needs_mb} MB", str(have_mb)
    return f"{needs} GB", have
