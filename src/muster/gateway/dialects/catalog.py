"""The models of the whole fleet as one list, as both dialects show it."""

from collections.abc import Callable, Iterable, Iterator

from muster.domain.model import Model, canonical_model_name
from muster.domain.service import Dialect
from muster.placement.candidate import Candidate
from muster.placement.filters import connected, draining, health, late, service
from muster.placement.wish import Wish

_NAMED_MAX = 8
_ANY = Wish()
_STATE = (connected, health, late, draining, service)


def offered(candidates: Iterable[Candidate], dialects: frozenset[Dialect]) -> list[Model]:
    """Return each model once, by name, if some worker that takes new requests has it; a resident one is preferred."""
    by_name: dict[str, Model] = {}
    for candidate in _working(candidates, dialects):
        for name, model in candidate.models.items():
            known = by_name.get(name)
            if known is None or (model.resident and not known.resident):
                by_name[name] = model
    return [by_name[name] for name in sorted(by_name)]


def offering(
    candidates: Iterable[Candidate], dialects: frozenset[Dialect], allows: Callable[[str], bool] = lambda _: True
) -> str:
    """Name whose models a list holds, for a header; `local` when it comes from nobody but us."""
    keys = [candidate.key for candidate in _working(candidates, dialects) if any(map(allows, candidate.models))]
    named = ", ".join(keys[:_NAMED_MAX])
    return f"{named}, +{len(keys) - _NAMED_MAX}" if len(keys) > _NAMED_MAX else named or "local"


def _working(candidates: Iterable[Candidate], dialects: frozenset[Dialect]) -> Iterator[Candidate]:
    for candidate in candidates:
        if not dialects.isdisjoint(candidate.dialects) and not any(rule(candidate, _ANY) for rule in _STATE):
            yield candidate


def with_sleeping(models: list[Model], names: Iterable[str]) -> list[Model]:
    """Add models that a request would wake; of them only the name is known, and what they are for is a guess."""
    known = {canonical_model_name(model.name) for model in models}
    sleeping = {name: Model(name=name) for name in names if canonical_model_name(name) not in known}
    return sorted((*models, *sleeping.values()), key=lambda model: canonical_model_name(model.name))


def find(models: Iterable[Model], name: str) -> Model | None:
    wanted = canonical_model_name(name)
    return next((model for model in models if canonical_model_name(model.name) == wanted), None)
